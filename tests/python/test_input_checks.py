"""Wrong input to any block or model is refused with the class's name, what was expected and what came."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from test_models import ACTIONS, BATCH, FRAMES, random_actions, random_tokens, random_video, tiny_config

from genie_cpp import nn
from genie_cpp.models import Genie


def blocks() -> dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]:
    """Each block with an input it takes."""
    torch.manual_seed(0)
    frames, tokens = torch.randn(1, 2, 4, 8), torch.randn(1, 8, 24)
    return {
        "ST attention": (nn.STSpatialAttention(8, 2), (frames,)),
        "ST attention (time)": (nn.STTemporalAttention(8, 2), (frames,)),
        "STMLP": (nn.STMLP(8), (frames,)),
        "STTransformerBlock": (nn.STTransformerBlock(8, 2), (frames,)),
        "STTransformer": (nn.STTransformer(2, 4, 8, 1, 2), (frames,)),
        "RoPEAttention": (nn.RoPEAttention(24, 2, grid_size=2), (tokens,)),
        "RoPEAttention (area)": (nn.RoPEAreaAttention(24, 2, grid_size=2), (tokens,)),
        "ViT5Attention": (nn.ViT5Attention(8, 2, 2, 2, num_registers=4), (torch.randn(1, 9, 8),)),
        "CrossAttention": (nn.CrossAttention(8, 2, 1), (torch.randn(1, 2, 8), torch.randn(1, 3, 8))),
        "CrossAttentionBlock": (
            nn.CrossAttentionBlock(8, 2, 1, 16),
            (torch.randn(1, 2, 8), torch.randn(1, 3, 8)),
        ),
        "PatchEmbedding": (nn.PatchEmbedding(4, 4, 2, 8), (torch.rand(1, 2, 3, 4, 4),)),
        "SpatialPositionalEmbedding": (nn.SpatialPositionalEmbedding(2, 2, 8), (frames,)),
        "TemporalPositionalEmbedding": (nn.TemporalPositionalEmbedding(2, 8), (frames,)),
        "VectorQuantizer": (nn.VectorQuantizer(4, 8), (frames,)),
    }


BLOCKS = sorted(blocks())


@pytest.mark.parametrize("name", BLOCKS)
def test_another_float_type_is_a_type_error_that_names_both(name: str) -> None:
    block, inputs = blocks()[name]
    block.eval()(*inputs)
    with pytest.raises(TypeError, match=f"{name.split(' (')[0]}.*Double.*Float"):
        block(inputs[0].double(), *inputs[1:])
    block.double()(*(tensor.double() for tensor in inputs))


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("kind", [torch.int64, torch.complex64, torch.bool])
def test_a_type_that_is_no_float_is_a_type_error(name: str, kind: torch.dtype) -> None:
    block, inputs = blocks()[name]
    with pytest.raises(TypeError):
        block.eval()(inputs[0].to(kind), *inputs[1:])


@pytest.mark.parametrize("name", BLOCKS)
def test_another_width_is_a_value_error_that_gives_the_shape(name: str) -> None:
    block, inputs = blocks()[name]
    with pytest.raises(ValueError, match=r"expected .*got \["):
        block(inputs[0][..., 1:], *inputs[1:])
    with pytest.raises(ValueError):
        block(inputs[0].flatten(), *inputs[1:])


@pytest.mark.parametrize("name", BLOCKS)
def test_autocast_takes_any_float(name: str) -> None:
    block, inputs = blocks()[name]
    with torch.autocast("cpu", torch.bfloat16):
        out = block.eval()(*(tensor.bfloat16() for tensor in inputs))
    assert (out.values if isinstance(out, tuple) else out).isfinite().all()


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "make",
    [
        lambda rate: nn.STSpatialAttention(8, 2, attn_drop=rate),
        lambda rate: nn.STTemporalAttention(8, 2, proj_drop=rate),
        lambda rate: nn.STTransformerBlock(8, 2, drop=rate),
        lambda rate: nn.STTransformerBlock(8, 2, drop_path=rate),
        lambda rate: nn.STTransformer(2, 4, 8, 1, 2, drop_rate=rate),
        lambda rate: nn.STTransformer(2, 4, 8, 1, 2, attn_drop_rate=rate),
        lambda rate: nn.STTransformer(2, 4, 8, 0, 2, drop_path_rate=rate),
        lambda rate: nn.RoPEAttention(24, 2, attn_drop=rate),
        lambda rate: nn.ViT5Attention(8, 2, 2, 2, proj_dropout=rate),
        lambda rate: nn.DropPath(rate),
        lambda rate: nn.STMLP(8, drop=rate),
    ],
)
def test_a_rate_outside_0_to_1_is_refused(make, rate: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        make(rate)


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: nn.STSpatialAttention(8, 2, head_dim=-4), "head_dim must be at least 1"),
        (lambda: nn.STTemporalAttention(8, 2, qk_scale=math.nan), "scale must be finite"),
        (lambda: nn.RoPEAttention(24, 2, qk_scale=math.inf), "scale must be finite"),
        (lambda: nn.ViT5Attention(8, 2, 2, 2, scale=math.nan), "scale must be finite"),
        (lambda: nn.STMLP(8, 0), "hidden_features and out_features must be at least 1"),
        (lambda: nn.STMLP(8, 4, -1), "out_features must be at least 1"),
        (lambda: nn.STTransformerBlock(8, 2, mlp_ratio=0), "mlp_ratio=0"),
        (lambda: nn.STTransformerBlock(8, 2, mlp_ratio=math.nan), "mlp_ratio=nan"),
        (lambda: nn.STTransformerBlock(8, 2, mlp_ratio=1e30), "mlp_ratio=1e"),
        (lambda: nn.STTransformer(0, 4, 8, 1, 2), "num_frames"),
        (lambda: nn.STTransformer(2, 4, 0, 0, 2), "dim"),
        (lambda: nn.RoPEAreaAttention(24, 2, spatial_splits=2**20, temporal_splits=2**20), "at most 1024"),
        (lambda: nn.RoPEAreaAttention(24, 2, residual_scale=math.nan), "residual_scale must be finite"),
        (lambda: nn.ViT5Attention(8, 2, 2, 2, num_registers=2**62), "at most"),
        (lambda: nn.ViT5Attention(8, 2, 2**40, 2**40), "at most"),
        (lambda: nn.ViT5Attention(8, 2, 2, 2, rope_base=math.inf), "rope_base"),
        (lambda: nn.VectorQuantizer(4, 8, ema_decay=1.5), r"ema_decay must be in \[0, 1\)"),
        (lambda: nn.VectorQuantizer(4, 8, ema_decay=math.nan), "ema_decay"),
        (lambda: nn.VectorQuantizer(4, 8, dead_code_steps=-1), "dead_code_steps"),
        (lambda: nn.VectorQuantizer(4, 8, commitment_weight=math.nan), "commitment_weight"),
        (lambda: nn.VectorQuantizer(4, 8, codebook_weight=-1.0), "codebook_weight"),
    ],
)
def test_impossible_arguments_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_frame_count_that_contradicts_the_input_is_refused() -> None:
    block = nn.STTransformerBlock(8, 2)
    block(torch.randn(1, 2, 4, 8), num_frames=2)
    with pytest.raises(ValueError, match="num_frames=3, but x has 2 frames"):
        block(torch.randn(1, 2, 4, 8), num_frames=3)


def test_a_frame_offset_beyond_all_integers_is_refused() -> None:
    with pytest.raises(ValueError, match="there are 4"):
        nn.TemporalPositionalEmbedding(4, 8)(torch.zeros(1, 2, 1, 8), 2**63 - 1)


@pytest.mark.parametrize("shape", [(), (8,), (8, 8)])
def test_an_attention_mask_of_low_rank_is_broadcast(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    module, x = nn.RoPEAttention(24, 2, grid_size=2).eval(), torch.randn(2, 8, 24)
    mask = torch.rand(shape) > 0.4
    assert torch.equal(module(x, attn_mask=mask), module(x, attn_mask=mask.expand(2, 2, 8, 8)))


def test_nan_never_reaches_the_codebook() -> None:
    torch.manual_seed(2)
    quantizer = nn.VectorQuantizer(4, 3).train()
    with pytest.raises(ValueError, match="start from hold NaN"):
        quantizer(torch.full((8, 3), math.nan))
    with pytest.raises(ValueError, match="M >= 1"):
        quantizer(torch.zeros(0, 3))
    quantizer(torch.randn(32, 3))
    quantizer.update_codebook()
    before = copy.deepcopy(quantizer.state_dict())
    spoiled = torch.randn(32, 3)
    spoiled[5, 1] = math.inf
    quantizer(spoiled)
    with pytest.raises(ValueError, match="codebook stays as it is"):
        quantizer.update_codebook()
    after = quantizer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    quantizer(torch.randn(32, 3))
    quantizer.update_codebook()
    assert quantizer.codebook.isfinite().all()


@pytest.fixture(scope="module")
def genie() -> Genie:
    torch.manual_seed(3)
    return Genie(tiny_config()).eval()


def test_models_refuse_nan_and_other_types(genie: Genie) -> None:
    video = random_video(1)
    spoiled = video.clone()
    spoiled[0, 1, 0, 2, 2] = math.nan
    for call in (genie.tokenizer.encode, genie.latent_action.infer, genie.tokenizer.initialize_from):
        with pytest.raises(ValueError, match="NaN"):
            call(spoiled)
    for name in ("tokenizer", "latent_action"):
        with pytest.raises(TypeError, match="Double.*Float"):
            getattr(genie, name)(video.double())
    hidden = torch.zeros(BATCH, FRAMES - 1, 4, dtype=torch.int64)
    with pytest.raises(TypeError, match="bool hidden"):
        genie.latent_action(video, hidden)
    with pytest.raises(ValueError, match=r"expected hidden \(B,T-1,N\)"):
        genie.latent_action(video, hidden[:, 1:].bool())


def test_the_dynamics_model_refuses_what_does_not_exist(genie: Genie) -> None:
    dynamics = genie.dynamics
    tokens, actions = random_tokens(FRAMES, 1), random_actions(FRAMES - 1, 2)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    with pytest.raises(TypeError, match="bool mask"):
        dynamics(tokens, actions, mask.float())
    with pytest.raises(ValueError, match="at least one frame"):
        dynamics(tokens[:, :0], actions[:, :0], mask[:, :0])
    with pytest.raises(TypeError, match="features is Double"):
        dynamics.logits(dynamics.features(tokens, actions, mask).double())
    with pytest.raises(ValueError, match="expected features"):
        dynamics.logits(dynamics.features(tokens, actions, mask)[..., 1:])
    long, steps = random_tokens(3 * FRAMES, 3), random_actions(3 * FRAMES, 4)
    wrong = long.clone()
    wrong[0, 0, 0] = 10**6  # in a frame that has left the window
    with pytest.raises(IndexError, match="tokens must be in"):
        dynamics.generate(wrong, steps)
    with pytest.raises(IndexError, match=f"actions must be in 0..{ACTIONS - 1}"):
        dynamics.generate(long, torch.full_like(steps, ACTIONS))


@pytest.mark.parametrize("seed", [-1, 2**64, 2**70])
def test_a_seed_outside_64_bits_is_refused(genie: Genie, seed: int) -> None:
    with pytest.raises(ValueError, match=r"0 .. 2\*\*64-1"):
        genie.generate(random_tokens(2, 1), random_actions(2, 2), seed=seed)
    with pytest.raises(TypeError, match="whole number"):
        genie.generate(random_tokens(2, 1), random_actions(2, 2), seed=0.5)


def test_hooks_on_a_models_quantizer_are_refused_and_on_its_copy_run(genie: Genie) -> None:
    for model in (genie.tokenizer, genie.latent_action):
        with pytest.raises(RuntimeError, match="VectorQuantizer is called by C\\+\\+ code"):
            model.quantizer.register_forward_hook(lambda *_: None)
    alone = copy.deepcopy(genie.tokenizer.quantizer)
    calls: list[int] = []
    alone.register_forward_hook(lambda *_: calls.append(1))
    alone(torch.randn(2, alone.codebook.shape[1]))
    assert calls == [1]


def test_weights_exchanged_between_forward_and_backward_are_an_error_under_checkpointing() -> None:
    torch.manual_seed(4)
    model = nn.STTransformer(3, 6, 24, 2, 2, gradient_checkpointing=True).train()
    x = torch.randn(1, 3, 6, 24)
    others = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    y = torch.func.functional_call(model, others, (x,))
    y.square().sum().backward()
    assert all(value.grad is not None for value in others.values())
    y = torch.func.functional_call(model, others, (x,))
    model(x)
    with pytest.raises(RuntimeError, match="exchanged between forward and backward"):
        y.square().sum().backward()


def test_a_codebook_in_low_precision_is_not_trained() -> None:
    quantizer = nn.VectorQuantizer(4, 3).bfloat16()
    with pytest.raises(TypeError, match="keep the module in float32"):
        quantizer.train()(torch.zeros(2, 3, dtype=torch.bfloat16))
    quantizer.eval()(torch.zeros(2, 3, dtype=torch.bfloat16))


def test_clips_and_batches_without_samples_pass_through() -> None:
    assert nn.STTransformer(3, 6, 24, 1, 2)(torch.randn(0, 18, 24)).shape == (0, 18, 24)
    assert nn.STTransformerBlock(24, 2)(torch.randn(0, 18, 24), True, 3).shape == (0, 18, 24)
    for cls in (nn.RoPEAttention, nn.RoPEAreaAttention):
        assert cls(24, 2, grid_size=3)(torch.randn(2, 0, 24)).shape == (2, 0, 24)


def test_float64_under_autocast_is_a_type_error() -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match="all but float64"):
        nn.STSpatialAttention(8, 2)(torch.zeros(1, 1, 1, 8).double())


def test_a_gradient_on_another_device_is_refused_by_a_backward_op() -> None:
    qkv = torch.randn(1, 2, 2, 3, 1, 4)
    grad = torch.empty(1, 2, 2, 4, device="meta")
    with pytest.raises(ValueError, match="the gradient is on meta"):
        torch.ops.genie._st_attention_backward(grad, qkv, "space", False, False, None)


def test_a_temperature_no_float_can_be_divided_by_is_refused() -> None:
    logits, tokens = torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.int64)
    mask, noise = torch.ones(1, 2, dtype=torch.bool), torch.rand(1, 2)
    with pytest.raises(ValueError, match="temperature must be finite, 0 or more and at most"):
        torch.ops.genie.maskgit_step(logits, tokens, mask, noise, noise, 0, 1e39)
