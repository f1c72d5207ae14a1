"""Sessions: what the cache gives is what the whole window (or history) gives, whatever the configuration, and
rewinding, forking and saving leave no trace in what follows."""

from __future__ import annotations

import gc
import itertools
import math
import random
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY

from genie_cpp import _C, ops
from genie_cpp.errors import GenieError
from genie_cpp.inference import Session
from genie_cpp.models import Genie

CODES, ACTIONS, TOKENS = 16, 4, 16


def shaken(config: _C.Config, seed: int) -> Genie:
    """A model whose weights are so large that every path shows in its frames."""
    genie = Genie(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in genie.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.35)
        genie.train()  # the codebook starts from the first batch
        genie.tokenizer(torch.rand(8, 2, 3, 16, 16, generator=generator))
    return genie.eval()


def tiny(*entries: str) -> _C.Config:
    config = _C.Config.parse(TINY)
    config.override(["tokenizer.initialization=random", *entries])
    return config


def prompt_video(batch: int, frames: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, frames, 16, 16, 3), np.uint8)


def draw_config(seed: int) -> tuple[_C.Config, dict[str, str]]:
    """A random configuration of all that attention, conditioning and time positions may be."""
    chance = random.Random(seed)
    drawn = {
        "data.num_frames": str(chance.choice([2, 3, 4, 5])),
        "dynamics.action_conditioning": chance.choice(["additive", "prepend", "cross_attention"]),
        "dynamics.cross_attention_every": "1",
        "dynamics.previous_frame_input": chance.choice(["true", "false"]),
        "inference.steps": str(chance.choice([1, 2, 3])),
        "inference.temperature": "0",
        "inference.schedule": chance.choice(["cosine", "linear"]),
        "inference.history": str(chance.choice([3, 5])),
    }
    for section in ("dynamics.transformer", "tokenizer.decoder"):
        drawn |= {
            f"{section}.depth": str(chance.choice([1, 2, 3])),
            f"{section}.head_dim": chance.choice(["8", "12"]),
            f"{section}.spatial_attention": chance.choice(["st", "vit5"]),
            f"{section}.temporal_position": chance.choice(["learned", "rotary"]),
            f"{section}.use_area_attention": chance.choice(["true", "false"]),
            f"{section}.area_temporal_splits": str(chance.choice([1, 2, 3])),
            f"{section}.area_attention_layers": "[0, 1]",
        }
    return tiny(*(f"{key}={value}" for key, value in drawn.items())), drawn


@torch.no_grad()
def whole_frame(
    genie: Genie, past: list[torch.Tensor], actions: list[torch.Tensor], options: dict[str, str]
) -> tuple[torch.Tensor, float]:
    """The next frame (B,N) by MaskGIT at temperature 0 over all frames at once; how close a call it was."""
    window = genie.dynamics.num_frames
    rotary = options["dynamics.transformer.temporal_position"] == "rotary"
    begin = 0 if rotary else max(0, len(past) - window + 1)
    context, between = past[begin:], torch.stack(actions[begin:], 1)
    frame, hidden = torch.zeros_like(past[0]), torch.ones_like(past[0], dtype=torch.bool)
    steps, margin = int(options["inference.steps"]), math.inf
    noise = torch.zeros(frame.shape)
    for step in range(1, steps + 1):
        tokens = torch.stack([*context, frame], 1)
        mask = torch.zeros_like(tokens, dtype=torch.bool)
        mask[:, -1] = hidden
        logits = genie.dynamics(tokens, between, mask)[:, -1]
        share = (
            math.cos(step / steps * math.pi / 2)
            if options["inference.schedule"] == "cosine"
            else 1 - step / steps
        )
        keep = math.floor(share * TOKENS) if step < steps else 0
        best, second = logits[hidden].topk(2).values.unbind(-1)
        margin = min(margin, float((best - second).min()))
        if 0 < keep:
            confidence = logits.log_softmax(-1).max(-1).values.masked_fill(~hidden, -math.inf).sort(-1).values
            revealed = int(hidden[0].sum()) - keep
            kept, next_one = confidence[:, -revealed], confidence[:, -revealed - 1]
            margin = min(margin, float((kept - next_one).min()))
        frame, hidden = ops.maskgit_step(logits, frame, hidden, noise, noise, keep, temperature=0.0)
    return frame, margin


def check_picture(genie: Genie, session: Session, past: list[torch.Tensor], options: dict[str, str]) -> None:
    """The session's frame against a decoding of the frames it is decoded with, all at once."""
    window = genie.tokenizer.num_frames
    last, hop = len(past) - 1, max(1, window // 2)
    begin = 0
    if options["tokenizer.decoder.temporal_position"] == "learned" and last >= window:
        begin = -(-(last - window + 1) // hop) * hop
    video = genie.tokenizer._method("decode")(torch.stack(past[begin:], 1))[:, -1]
    expected = video.detach().mul(255).round().movedim(1, -1).numpy()
    assert np.abs(session.frame.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("seed", range(24))
def test_a_session_gives_what_all_frames_at_once_give_through_steps_rewinds_and_forks(seed: int) -> None:
    config, options = draw_config(seed)
    print(f"seed {seed}: {options}")
    genie = shaken(config, seed)
    chance = random.Random(seed)
    batch, prompt = chance.choice([1, 1, 3]), chance.choice([1, 2, 4])
    history = int(options["inference.history"])
    video = torch.as_tensor(prompt_video(batch, prompt)).movedim(-1, -3).float().div(255)
    past = list(genie.tokenizer.encode(video).unbind(1))
    actions = list(genie.latent_action.infer(video).unbind(1)) if prompt > 1 else []
    session = genie.play(prompt_video(batch, prompt), seed=seed)
    assert session.frames.shape == (batch, min(prompt, history + 1), 16, 16, 3)
    sure, rewindable = 0, 0
    for _ in range(16):
        if rewindable >= 2 and chance.random() < 0.25:
            back = chance.randint(1, rewindable)
            session.rewind(back)
            del past[-back:], actions[-back:]
            rewindable -= back
        elif chance.random() < 0.15:
            session = session.fork()
        action = torch.tensor([chance.randrange(ACTIONS) for _ in range(batch)])
        expected, margin = whole_frame(genie, past, [*actions, action], options)
        session.step(action)
        if margin > 1e-3:  # elsewhere rounding may decide
            sure += 1
            assert torch.equal(session.tokens, expected)
        past.append(session.tokens)
        actions.append(action)
        rewindable = min(rewindable + 1, history)
        check_picture(genie, session, past, options)
    assert sure >= 3  # 16 in most configurations


@torch.no_grad()
@pytest.mark.parametrize(
    ("spatial", "area", "conditioning"),
    list(itertools.product(("st", "vit5"), ("false", "true"), ("additive", "prepend", "cross_attention"))),
)
def test_rotary_logits_see_a_band_of_layers_times_window_frames(
    spatial: str, area: str, conditioning: str
) -> None:
    window, depth = 3, 2
    genie = shaken(
        tiny(
            f"data.num_frames={window}",
            f"dynamics.transformer.depth={depth}",
            f"dynamics.transformer.spatial_attention={spatial}",
            f"dynamics.transformer.use_area_attention={area}",
            "dynamics.transformer.area_attention_layers=[0, 1]",
            "dynamics.transformer.temporal_position=rotary",
            f"dynamics.action_conditioning={conditioning}",
            "dynamics.cross_attention_every=1",
        ),
        3,
    )
    frames = 12
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(CODES, (2, frames, TOKENS), generator=generator)
    actions = torch.randint(ACTIONS, (2, frames - 1), generator=generator)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    whole = genie.dynamics(tokens, actions, mask)
    reach = depth * (window - 1)
    changed = tokens.clone()
    changed[:, 4] = (tokens[:, 4] + 1) % CODES
    difference = (genie.dynamics(changed, actions, mask) - whole).abs().amax((0, 2, 3))
    assert (difference[:4] <= 1e-4).all() and difference[4] >= 1e-2
    assert (difference[4 + reach + 1 :] <= 1e-4).all()
    if area == "false":
        assert difference[4 + reach] >= 1e-4  # what the window alone would not show


def test_rotary_temporal_attention_depends_on_how_long_ago_alone() -> None:
    genie = shaken(tiny("tokenizer.decoder.temporal_position=rotary"), 5)
    generator = torch.Generator().manual_seed(6)
    first = torch.randint(CODES, (1, 1, TOKENS), generator=generator)
    clip = torch.randint(CODES, (1, 4, TOKENS), generator=generator)
    decode = genie.tokenizer._method("decode")
    # After enough frames of padding the clip's last frame has left the padding behind.
    early = decode(torch.cat([first.expand(1, 4, -1), clip], 1))[:, -1]
    late = decode(torch.cat([first.expand(1, 40, -1), clip], 1))[:, -1]
    assert float((early - late).detach().abs().max()) <= 1e-4


@pytest.fixture(scope="module", params=["learned", "rotary"])
def genie(request: pytest.FixtureRequest) -> Genie:
    kind = request.param
    return shaken(
        tiny(
            f"dynamics.transformer.temporal_position={kind}",
            f"tokenizer.decoder.temporal_position={kind}",
            "inference.temperature=2",
            "inference.history=6",
        ),
        1,
    )


def frames_of(session: Session, actions: list[int]) -> np.ndarray:
    return np.stack([session.step(action) for action in actions])


def test_the_same_seed_and_actions_give_the_same_frames(genie: Genie) -> None:
    prompt = prompt_video(1, 2)[0]
    one, same, other = (frames_of(genie.play(prompt, seed), [0, 1, 2, 3, 0, 1]) for seed in (7, 7, 8))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert one.dtype == np.uint8 and one.shape == (6, 16, 16, 3)


def test_a_fork_is_independent_and_its_seed_decides(genie: Genie) -> None:
    session = genie.play(prompt_video(1, 2)[0], seed=7)
    frames_of(session, [0, 1, 2, 3, 1])
    twin, stranger = session.fork(), session.fork(seed=99)
    assert twin.seed == 7 and stranger.seed == 99 and twin.actions == session.actions
    strange = frames_of(stranger, [1, 2, 3])
    assert np.array_equal(frames_of(twin, [1, 2, 3]), frames_of(session, [1, 2, 3]))
    assert not np.array_equal(strange, session.frames[-3:])


def test_what_was_rewound_leaves_no_trace(genie: Genie) -> None:
    session = genie.play(prompt_video(1, 2)[0], seed=7)
    before = frames_of(session, [0, 1, 2, 3, 1])
    after = frames_of(session, [2, 2, 0, 3])
    assert np.array_equal(session.rewind(4), before[-1])
    frames_of(session, [1, 3])
    session.rewind(2)
    assert session.num_steps_taken == 5 and session.actions == [0, 1, 2, 3, 1]
    assert np.array_equal(frames_of(session, [2, 2, 0, 3]), after)


def test_rewinding_is_bounded_and_says_so(genie: Genie) -> None:
    session = genie.play(prompt_video(1, 1)[0], seed=7)
    frames_of(session, [0, 1])
    with pytest.raises(GenieError, match="only 2 were taken"):
        session.rewind(3)
    frames_of(session, [0] * 10)
    assert len(session.frames) == 7
    with pytest.raises(GenieError, match=r"inference\.history = 6"):
        session.rewind(7)
    with pytest.raises(GenieError, match="negative"):
        session.rewind(-1)
    assert session.num_steps_taken == 12
    session.rewind(6)


def test_a_saved_session_continues_identically(genie: Genie, tmp_path: Path) -> None:
    path = tmp_path / "session.safetensors"
    for batch, count in ((None, 2), (2, 3), (2, 9)):
        prompt = prompt_video(batch or 1, 2)
        session = genie.play(prompt if batch else prompt[0], seed=7, steps=3, temperature=1.5)
        action = [1, 2] if batch else 1
        for _ in range(count):
            session.step(action)
        session.save(path)
        again = genie.load_session(path)
        assert np.array_equal(again.frames, session.frames) and again.actions == session.actions
        assert again.options == session.options and again.seed == 7
        for _ in range(6):
            assert np.array_equal(again.step(action), session.step(action))
        assert np.array_equal(again.rewind(6), session.rewind(6))


def test_a_file_that_is_no_session_of_this_model_is_refused(genie: Genie, tmp_path: Path) -> None:
    path = tmp_path / "session.safetensors"
    session = genie.play(prompt_video(1, 1)[0])
    session.step(0)
    session.save(path)
    other = shaken(genie.config, 2)
    with pytest.raises(GenieError, match="another model"):
        other.load_session(path)
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) // 2])
    with pytest.raises(GenieError):
        genie.load_session(path)
    path.write_bytes(contents.replace(b"genie_cpp session", b"genie_cpp sessiom"))
    with pytest.raises(GenieError, match="not a session"):
        genie.load_session(path)
    path.write_bytes(contents.replace(b'"version":"1"', b'"version":"7"'))
    with pytest.raises(GenieError, match="version '7'"):
        genie.load_session(path)
    with pytest.raises(GenieError):
        genie.load_session(tmp_path / "missing")


@pytest.mark.parametrize("position", [24, 32, 40, 48, 56])
def test_numbers_that_contradict_the_session_are_an_error(
    genie: Genie, tmp_path: Path, position: int
) -> None:
    from safetensors.torch import load_file, safe_open, save_file

    path = tmp_path / "session.safetensors"
    session = genie.play(prompt_video(1, 2)[0])
    session.step(0)
    session.save(path)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    for value in (-1, 10**9):
        tensors["numbers"][position // 8] = value
        save_file(tensors, path, metadata)
        with pytest.raises(GenieError):
            genie.load_session(path)


def test_a_batch_gives_what_its_prompts_give_alone(genie: Genie) -> None:
    prompts = prompt_video(3, 2)
    batch = genie.play(prompts, temperature=0)
    alone = [genie.play(prompt, temperature=0) for prompt in prompts]
    assert batch.batch_size == 3
    for step in range(8):
        actions = [step % ACTIONS, 1, (step + 2) % ACTIONS]
        together = batch.step(actions)
        separate = np.stack([one.step(action) for one, action in zip(alone, actions, strict=True)])
        assert np.abs(together.astype(int) - separate).max() <= 1
    assert batch.actions[0] == alone[0].actions and len(batch.actions) == 3


def test_sessions_of_one_model_step_in_threads_as_they_do_one_after_the_other(genie: Genie) -> None:
    prompt = prompt_video(1, 2)[0]
    moves = [0, 1, 2, 3] * 6
    expected = [frames_of(genie.play(prompt, seed), moves) for seed in range(3)]
    sessions = [genie.play(prompt, seed) for seed in range(3)]
    results: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.update({i: frames_of(sessions[i], moves)}))
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(3):
        assert np.array_equal(results[i], expected[i])


def test_options_may_change_on_the_way_and_are_checked(genie: Genie) -> None:
    session = genie.play(prompt_video(1, 1)[0], steps=1)
    session.configure(steps=3, temperature=0.5, schedule="linear", unmasking="random", top_k=4, top_p=0.9)
    assert session.options == {
        "steps": 3,
        "temperature": 0.5,
        "schedule": "linear",
        "unmasking": "random",
        "top_k": 4,
        "top_p": 0.9,
        "history": 6,
        "dtype": "float32",
    }
    session.step(1)
    with pytest.raises(GenieError, match=r"inference\.temperature"):
        session.configure(steps=4, temperature=-1.0)
    assert session.options["steps"] == 3
    with pytest.raises(TypeError):
        session.configure(history=3)


def test_what_is_no_action_or_prompt_is_refused(genie: Genie) -> None:
    session = genie.play(prompt_video(1, 1)[0, 0])
    before = session.frame
    for action, error in ((ACTIONS, IndexError), (-1, IndexError), (1.0, TypeError), ([1], TypeError)):
        with pytest.raises(error):
            session.step(action)
    assert session.num_steps_taken == 0 and np.array_equal(session.frame, before)
    batch = genie.play(prompt_video(2, 1))
    for actions, error in (([1], ValueError), ([1, ACTIONS], IndexError), ([0.5, 1.0], TypeError)):
        with pytest.raises(error):
            batch.step(actions)
    for prompt in (
        torch.zeros(2, 2),
        torch.full((1, 1, 3, 16, 16), math.nan),
        np.zeros((0, 16, 16, 3), np.uint8),
    ):
        with pytest.raises(GenieError, match="prompt"):
            genie.play(prompt)
    with pytest.raises(GenieError, match="FILE"):
        genie.play("nowhere")


def test_a_prompt_of_another_size_is_resized(genie: Genie) -> None:
    large = prompt_video(1, 1)[0, 0].repeat(3, 0).repeat(3, 1)
    assert genie.play(large).step(0).shape == (16, 16, 3)


def test_a_model_put_into_training_is_refused(genie: Genie) -> None:
    session = genie.play(prompt_video(1, 1)[0])
    genie.train()
    try:
        with pytest.raises(GenieError, match="eval"):
            session.step(0)
    finally:
        genie.eval()


def test_bfloat16_plays_where_the_processor_has_it_and_is_refused_elsewhere(genie: Genie) -> None:
    has = "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    if not has:
        with pytest.raises(GenieError, match="bfloat16"):
            genie.play(prompt_video(1, 1)[0], dtype="bfloat16")
        return
    session = genie.play(prompt_video(1, 1)[0], dtype="bfloat16")
    assert frames_of(session, [0, 1, 2, 3, 0, 1]).shape == (6, 16, 16, 3)


def test_rotary_positions_need_heads_of_whole_fours() -> None:
    with pytest.raises(GenieError, match="fours"):
        tiny("dynamics.transformer.temporal_position=rotary", "dynamics.transformer.head_dim=6")


def test_five_thousand_frames_hold_memory_constant(genie: Genie) -> None:
    session = genie.play(prompt_video(1, 2)[0], steps=1)

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    for step in range(500):
        session.step(step % ACTIONS)
    before = resident()
    for step in range(4500):
        session.step(step % ACTIONS)
    assert session.num_steps_taken == 5000
    assert resident() - before <= 6 * 2**20
