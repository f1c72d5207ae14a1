"""The three models: what each may look at, and generation against a plain MaskGIT written here."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import pytest
import torch
from tiny import TINY

import genie_cpp
from genie_cpp import _C, training
from genie_cpp.config_values import changed
from genie_cpp.errors import GenieError
from genie_cpp.models import DynamicsModel, Genie, LatentActionModel, VideoTokenizer

FRAMES, TOKENS, CODES, ACTIONS, BATCH = 4, 16, 16, 4, 8


def tiny_config(*entries: str) -> _C.Config:
    config = _C.Config.parse(TINY)
    config.override(["tokenizer.initialization=random", *entries])
    return config


def random_video(seed: int) -> torch.Tensor:
    return torch.rand(BATCH, FRAMES, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def shaken(model: Genie, seed: int = 0) -> Genie:
    """The model with weights so large that every path shows in its outputs."""
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.4)
        model.train()  # the codebooks start from the first batch, so that all codes are used
        model.tokenizer(random_video(seed + 10))
        model.latent_action(random_video(seed + 10))
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Genie:
    return shaken(Genie(tiny_config()))


def random_tokens(frames: int, seed: int) -> torch.Tensor:
    return torch.randint(CODES, (BATCH, frames, TOKENS), generator=torch.Generator().manual_seed(seed))


def random_actions(count: int, seed: int) -> torch.Tensor:
    return torch.randint(ACTIONS, (BATCH, count), generator=torch.Generator().manual_seed(seed))


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max()) if a.numel() else 0.0


DYNAMICS_VARIANTS = [
    ["dynamics.action_conditioning=additive"],
    ["dynamics.action_conditioning=prepend"],
    ["dynamics.action_conditioning=prepend", "dynamics.previous_frame_input=true"],
    ["dynamics.action_conditioning=cross_attention", "dynamics.cross_attention_every=1"],
]


@pytest.mark.parametrize("changed", range(FRAMES))
@torch.no_grad()
def test_a_frames_tokens_do_not_depend_on_later_frames(model: Genie, changed: int) -> None:
    video = random_video(1)
    other = video.clone()
    other[:, changed] = random_video(2)[:, changed]
    before, after = model.tokenizer.encode(video), model.tokenizer.encode(other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    for frame in range(changed, FRAMES):
        assert not torch.equal(before[:, frame], after[:, frame])


@pytest.mark.parametrize("changed", range(FRAMES))
@torch.no_grad()
def test_a_decoded_frame_does_not_depend_on_later_tokens(model: Genie, changed: int) -> None:
    tokens = random_tokens(FRAMES, 1)
    other = tokens.clone()
    other[:, changed] = (tokens[:, changed] + 1) % CODES
    before, after = model.tokenizer.decode(tokens), model.tokenizer.decode(other)
    assert largest_difference(before[:, :changed], after[:, :changed]) <= 1e-6
    for frame in range(changed, FRAMES):
        assert largest_difference(before[:, frame], after[:, frame]) >= 1e-3


@pytest.mark.parametrize("changed", range(1, FRAMES))
@torch.no_grad()
def test_an_action_depends_on_the_frame_it_led_to_and_none_after(model: Genie, changed: int) -> None:
    video = random_video(1)
    other = video.clone()
    other[:, changed] = random_video(2)[:, changed]
    before, after = model.latent_action.infer(video), model.latent_action.infer(other)
    assert torch.equal(before[:, : changed - 1], after[:, : changed - 1])
    assert not torch.equal(before[:, changed - 1], after[:, changed - 1])


@pytest.mark.parametrize("changed", range(1, FRAMES))
@torch.no_grad()
def test_a_predicted_frame_knows_the_frame_itself_by_the_action_only(model: Genie, changed: int) -> None:
    video = random_video(1)
    other = video.clone()
    other[:, changed] = (video[:, changed] + 0.001 * random_video(2)[:, changed]).clamp(0, 1)
    before, after = model.latent_action(video), model.latent_action(other)
    same = before["actions"][:, changed - 1] == after["actions"][:, changed - 1]
    assert same.any()
    difference = before["prediction"][same, :changed] - after["prediction"][same, :changed]
    assert float(difference.abs().max()) <= 1e-4


@pytest.mark.parametrize("variant", DYNAMICS_VARIANTS)
@pytest.mark.parametrize("changed", range(FRAMES))
@torch.no_grad()
def test_logits_do_not_depend_on_later_frames_and_actions(variant: list[str], changed: int) -> None:
    model = shaken(Genie(tiny_config(*variant)))
    tokens, actions = random_tokens(FRAMES, 1), random_actions(FRAMES - 1, 2)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    before = model.dynamics(tokens, actions, mask)
    other = tokens.clone()
    other[:, changed] = (tokens[:, changed] + 1) % CODES
    variants = [model.dynamics(other, actions, mask)]
    if changed > 0:
        moved = actions.clone()
        moved[:, changed - 1] = (actions[:, changed - 1] + 1) % ACTIONS
        variants.append(model.dynamics(tokens, moved, mask))
    for after in variants:
        assert largest_difference(before[:, :changed], after[:, :changed]) <= 1e-4
        for frame in range(changed, FRAMES):
            assert (
                largest_difference(before[:, frame], after[:, frame]) >= 1e-3
            )  # a prepended action reaches tokens only through attention


@torch.no_grad()
def test_a_masked_token_is_hidden(model: Genie) -> None:
    tokens, actions = random_tokens(FRAMES, 1), random_actions(FRAMES - 1, 2)
    mask = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    other = torch.where(mask, (tokens + 1) % CODES, tokens)
    assert torch.equal(model.dynamics(tokens, actions, mask), model.dynamics(other, actions, mask))


@torch.no_grad()
def plain_maskgit(
    model: DynamicsModel, prompt: torch.Tensor, actions: torch.Tensor, steps: int
) -> torch.Tensor:
    """MaskGIT at temperature 0, cosine schedule; every step looks at the whole window anew."""
    frames = list(prompt.unbind(1))
    for _ in range(actions.shape[1] - prompt.shape[1] + 1):
        past = min(len(frames), model.num_frames - 1)
        window_actions = actions[:, len(frames) - past : len(frames)]
        frame = torch.zeros_like(frames[0])
        hidden = torch.ones_like(frame, dtype=torch.bool)
        for step in range(1, steps + 1):
            tokens = torch.stack([*frames[-past:], frame], dim=1)
            mask = torch.zeros_like(tokens, dtype=torch.bool)
            mask[:, -1] = hidden
            probability, best = model(tokens, window_actions, mask)[:, -1].softmax(-1).max(-1)
            frame = torch.where(hidden, best, frame)
            confidence = probability.masked_fill(~hidden, math.inf)
            keep = math.floor(math.cos(step / steps * math.pi / 2) * TOKENS) if step < steps else 0
            order = confidence.argsort(-1)[:, :keep]
            hidden = torch.zeros_like(hidden).scatter(1, order, True)
        frames.append(frame)
    return torch.stack(frames[prompt.shape[1] :], dim=1)


@pytest.mark.parametrize("variant", DYNAMICS_VARIANTS)
@pytest.mark.parametrize("prompt_frames", [1, 2, FRAMES, FRAMES + 2])
def test_generation_with_the_cache_is_plain_maskgit(variant: list[str], prompt_frames: int) -> None:
    # With other seeds frames repeat the former one whatever is done, which would hide a wrong cache.
    seed = 3 if "dynamics.previous_frame_input=true" in variant else 0
    model = shaken(Genie(tiny_config(*variant)), seed)
    prompt = random_tokens(prompt_frames, 5)
    actions = random_actions(prompt_frames - 1 + FRAMES + 2, 6)  # far enough for the window to slide
    generated = model.generate(prompt, actions, steps=3, temperature=0)
    assert generated.shape == (BATCH, FRAMES + 2, TOKENS)
    assert torch.equal(generated, plain_maskgit(model.dynamics, prompt, actions, 3))
    moved = actions.clone()
    moved[:, prompt_frames + 1] = (actions[:, prompt_frames + 1] + 1) % ACTIONS
    other = model.generate(prompt, moved, steps=3, temperature=0)
    assert torch.equal(other[:, :2], generated[:, :2]) and not torch.equal(other[:, 2], generated[:, 2])


def test_the_seed_decides_what_is_sampled(model: Genie) -> None:
    prompt, actions = random_tokens(1, 5), random_actions(3, 6)
    first, again, other = (model.generate(prompt, actions, seed=seed, temperature=2) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("steps", 0),
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("schedule", "cosin"),
        ("unmasking", "best"),
        ("top_k", -1),
        ("top_k", CODES + 1),
        ("top_p", 0.0),
        ("top_p", 1.5),
    ],
)
def test_a_sampling_option_out_of_range_is_named(model: Genie, option: str, value: object) -> None:
    with pytest.raises(GenieError, match=f"inference.{option}"):
        model.generate(random_tokens(1, 5), random_actions(1, 6), **{option: value})


def test_wrong_inputs_are_ordinary_python_errors_without_a_backtrace(model: Genie) -> None:
    tokens, actions = random_tokens(FRAMES, 1), random_actions(FRAMES - 1, 2)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    with pytest.raises(ValueError, match="actions") as caught:
        model.dynamics(tokens, actions[:, 1:], mask)
    assert "frame #" not in str(caught.value) and "\n" not in str(caught.value).strip()
    with pytest.raises(IndexError, match="tokens must be in 0..15"):
        model.dynamics(tokens + CODES, actions, mask)
    with pytest.raises(TypeError, match="int64"):
        model.dynamics(tokens.int(), actions, mask)
    with pytest.raises(IndexError, match="actions"):
        model.generate(tokens, random_actions(FRAMES, 2) + ACTIONS)
    with pytest.raises(ValueError, match="video"):
        model.latent_action.infer(random_video(1)[:, :1])
    for wrong in (torch.zeros(3), random_video(1)[0], random_video(1)[..., :8]):
        with pytest.raises(ValueError):
            model.tokenizer.encode(wrong)
    with pytest.raises(ValueError, match="decode"):
        model.tokenizer.decode(tokens[..., 1:])


@torch.no_grad()
def test_clips_longer_than_the_window_are_taken(model: Genie) -> None:
    video = random_video(1).repeat(1, 3, 1, 1, 1)
    tokens = model.tokenizer.encode(video)
    assert tokens.shape == (BATCH, 3 * FRAMES, TOKENS)
    assert torch.equal(tokens[:, :FRAMES], model.tokenizer.encode(video[:, :FRAMES]))
    assert model.tokenizer.decode(tokens).shape == video.shape
    assert model.latent_action.infer(video).shape == (BATCH, 3 * FRAMES - 1)


def test_parameters_are_the_models_own() -> None:
    model = Genie(tiny_config())
    tokens, actions = random_tokens(FRAMES, 1), random_actions(FRAMES - 1, 2)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    optimizer = torch.optim.SGD(model.dynamics.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(
            model.dynamics(tokens, actions, mask).flatten(0, 2), tokens.flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    names = dict(model.named_parameters())
    shared = dict(model.dynamics.named_parameters())["head.weight"]
    assert names["dynamics.head.weight"].data_ptr() == shared.data_ptr()


def test_training_and_evaluation_mode_reach_the_core() -> None:
    for model in (VideoTokenizer(tiny_config()), LatentActionModel(tiny_config()), Genie(tiny_config())):
        assert model.training
        assert not model.eval().training
        assert model.train().training
        assert model.to("cpu").device.type == "cpu"


@torch.no_grad()
def test_a_whole_world_copies_pickles_and_loads_its_state(model: Genie) -> None:
    prompt, actions = random_tokens(1, 5), random_actions(3, 6)
    expected = model.generate(prompt, actions, seed=1, temperature=2)
    fresh = Genie(tiny_config())
    assert not torch.equal(fresh.eval().generate(prompt, actions, seed=1, temperature=2), expected)
    fresh.load_state_dict(model.state_dict(), strict=True)
    for same in (fresh, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(same.tokenizer, VideoTokenizer) and same.config == model.config
        assert torch.equal(same.generate(prompt, actions, seed=1, temperature=2), expected)
        same.dynamics.head.bias.fill_(0).add_(torch.arange(CODES))
        assert not torch.equal(same.generate(prompt, actions, seed=1, temperature=2), expected)
    assert torch.equal(model.generate(prompt, actions, seed=1, temperature=2), expected)


@torch.no_grad()
def test_one_model_of_a_world_copies_by_itself(model: Genie) -> None:
    tokenizer = copy.deepcopy(model.tokenizer)
    assert torch.equal(tokenizer.encode(random_video(1)), model.tokenizer.encode(random_video(1)))


@torch.no_grad()
def test_an_assigned_state_dict_is_what_the_core_computes_with(model: Genie) -> None:
    fresh = Genie(tiny_config()).eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fresh.load_state_dict(state, assign=True)
    video, tokens, actions = random_video(1), random_tokens(FRAMES, 1), random_actions(FRAMES - 1, 2)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    assert torch.equal(fresh.tokenizer.encode(video), model.tokenizer.encode(video))
    assert torch.equal(fresh.latent_action.infer(video), model.latent_action.infer(video))
    assert torch.equal(fresh.dynamics(tokens, actions, mask), model.dynamics(tokens, actions, mask))


@torch.no_grad()
def test_models_run_in_float64(model: Genie) -> None:
    double = copy.deepcopy(model).double()
    tokens, actions = random_tokens(FRAMES, 1), random_actions(FRAMES - 1, 2)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    logits = double.dynamics(tokens, actions, mask)
    assert logits.dtype == torch.float64
    assert largest_difference(logits, model.dynamics(tokens, actions, mask).double()) <= 1e-3


def test_hooks_on_models_run_and_parts_refuse_them(model: Genie) -> None:
    calls: list[int] = []
    handle = model.tokenizer.register_forward_hook(lambda *_: calls.append(1))
    model.tokenizer(random_video(1))
    handle.remove()
    assert calls == [1]
    with pytest.raises(RuntimeError, match="never run"):
        model.tokenizer.encoder.register_forward_hook(lambda *_: None)


@torch.no_grad()
def test_the_latent_action_model_predicts_frames_under_chosen_actions(model: Genie) -> None:
    video = random_video(1)
    seen = model.latent_action(video)
    predicted = model.latent_action.predict(video[:, :-1], seen["actions"])
    assert predicted.shape == (BATCH, FRAMES - 1, 3, 16, 16)
    assert 0 <= float(predicted.min()) and float(predicted.max()) <= 1
    others = model.latent_action.predict(video[:, :-1], (seen["actions"] + 1) % ACTIONS)
    assert largest_difference(predicted, others) >= 1e-3
    with pytest.raises(ValueError, match="predict"):
        model.latent_action.predict(video, seen["actions"])
    with pytest.raises(IndexError):
        model.latent_action.predict(video[:, :-1], seen["actions"] + ACTIONS)


def test_models_are_built_from_dictionaries_and_name_a_wrong_key() -> None:
    stack = {"depth": 1, "dim": 8, "heads": 2}
    config = {
        "data": {"num_frames": 2, "height": 8, "width": 8},
        "latent_action": {"patch_size": 4},
        "tokenizer": {"encoder": stack, "decoder": stack, "quantizer": {"num_codes": 4, "code_dim": 2}},
    }
    tokenizer = VideoTokenizer(config)
    assert (tokenizer.num_codes, tokenizer.num_frames, tokenizer.tokens_per_frame) == (4, 2, 4)
    with pytest.raises(GenieError, match="num_codez"):
        VideoTokenizer({"tokenizer": {"quantizer": {"num_codez": 4}}})


def test_a_configuration_copies_compares_and_pickles() -> None:
    config = tiny_config()
    for same in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert same == config
        same.override(["training.seed=7"])
        assert same != config
    assert "training.seed" not in config.to_yaml() and "seed: 0" in config.to_yaml()
    with pytest.raises(genie_cpp.GenieError):
        config.override(["training.seed=8", "data.num_frames=0"])
    assert config == tiny_config()


def test_errors_of_the_core_pickle() -> None:
    error = pickle.loads(pickle.dumps(GenieError("what to do")))
    assert isinstance(error, GenieError) and isinstance(error, ValueError) and str(error) == "what to do"


def test_kmeans_and_nearest_find_separate_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(6, 3, generator=generator) * 10
    points = centers.repeat(50, 1) + 0.01 * torch.randn(300, 3, generator=generator)
    found = _C.kmeans(points, 6, 20, seed=1)
    assert torch.equal(_C.nearest(points, centers), torch.arange(6).repeat(50))
    assert float((points - found[_C.nearest(points, found)]).abs().max()) <= 20
    assert len(_C.nearest(points, found).unique()) == 6


def test_saved_weights_load_as_a_run_and_are_not_overwritten(model: Genie, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "run")
    back = Genie.from_pretrained(tmp_path / "run")
    assert back.config == model.config and not back.training
    state, expected = back.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    with pytest.raises(GenieError, match="already holds a run"):
        model.save_pretrained(tmp_path / "run")


def test_training_goes_on_from_saved_weights(model: Genie, tmp_path: Path) -> None:
    _C.write_synthetic_world(str(tmp_path / "world.h5"), 120, 16, 16, 30, 0)
    model.save_pretrained(tmp_path / "run")
    config = changed(model.config, f"data.path={tmp_path / 'world.h5'}")
    training.train(config, tmp_path / "run", phase="tokenizer", resume=True, show_progress=False)
    after = Genie.from_pretrained(tmp_path / "run").tokenizer.state_dict()
    name = "decoder.embed.weight"
    before = model.tokenizer.state_dict()[name]
    assert 0 < largest_difference(after[name], before) <= 0.1
