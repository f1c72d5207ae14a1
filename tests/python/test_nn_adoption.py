"""C++ blocks are ordinary torch.nn.Modules: what torch does to modules works, or says why it can't."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import attention_references as references
import pytest
import torch
from torch import Tensor

from genie_cpp import nn

Factory = Callable[[], nn.Module]

BLOCKS: dict[str, tuple[Factory, Callable[[], tuple[Tensor, ...]]]] = {
    "STSpatialAttention": (lambda: nn.STSpatialAttention(8, 2), lambda: (torch.randn(2, 3, 4, 8),)),
    "STTemporalAttention": (lambda: nn.STTemporalAttention(8, 2, True), lambda: (torch.randn(2, 3, 4, 8),)),
    "STMLP": (lambda: nn.STMLP(8, 16), lambda: (torch.randn(2, 8),)),
    "DropPath": (lambda: nn.DropPath(0.0), lambda: (torch.randn(2, 8),)),
    "STTransformerBlock": (lambda: nn.STTransformerBlock(8, 2), lambda: (torch.randn(2, 3, 4, 8),)),
    "STTransformer": (
        lambda: nn.STTransformer(num_patches_per_frame=4, dim=8, depth=2, num_heads=2),
        lambda: (torch.randn(2, 3, 4, 8),),
    ),
    "RoPEAttention": (lambda: nn.RoPEAttention(16, 2, grid_size=2), lambda: (torch.randn(2, 8, 16),)),
    "RoPEAreaAttention": (lambda: nn.RoPEAreaAttention(16, 2, grid_size=2), lambda: (torch.randn(2, 8, 16),)),
    "ViT5Attention": (
        lambda: nn.ViT5Attention(16, 2, 2, 3, qk_norm="rmsnorm", qkv_bias=True),
        lambda: (torch.randn(2, 11, 16),),
    ),
    "CrossAttention": (
        lambda: nn.CrossAttention(8, 4, 2),
        lambda: (torch.randn(2, 3, 8), torch.randn(2, 5, 8)),
    ),
    "CrossAttentionBlock": (
        lambda: nn.CrossAttentionBlock(8, 4, 2, 12, "layernorm"),
        lambda: (torch.randn(2, 3, 8), torch.randn(2, 5, 8)),
    ),
    "RMSNorm": (lambda: nn.RMSNorm(8), lambda: (torch.randn(2, 8),)),
    "PatchEmbedding": (lambda: nn.PatchEmbedding(5, 6, 2, 8), lambda: (torch.rand(2, 3, 3, 5, 6),)),
    "SpatialPositionalEmbedding": (
        lambda: nn.SpatialPositionalEmbedding(2, 3, 8),
        lambda: (torch.randn(2, 3, 6, 8),),
    ),
    "TemporalPositionalEmbedding": (
        lambda: nn.TemporalPositionalEmbedding(4, 8),
        lambda: (torch.randn(2, 3, 6, 8),),
    ),
    "CombinedPositionalEmbedding": (
        lambda: nn.CombinedPositionalEmbedding(4, 2, 3, 8),
        lambda: (torch.randn(2, 3, 6, 8),),
    ),
    "VectorQuantizer": (
        lambda: nn.VectorQuantizer(5, 8, update="loss", kmeans_init=False),
        lambda: (torch.randn(7, 8),),
    ),
}

every_block = pytest.mark.parametrize("name", BLOCKS)


def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The block with random weights (also where it starts at zero), and inputs for it."""
    references.seed(1)
    make, draw = BLOCKS[name]
    module = make()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module, draw()


def run(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    out = module(*inputs)
    return out if isinstance(out, Tensor) else out[0]


def attention() -> tuple[nn.Module, Tensor]:
    references.seed(2)
    return nn.RoPEAttention(16, 2, grid_size=2), torch.randn(2, 8, 16)


@every_block
def test_state_dict_loads_strictly_both_ways(name):
    module, inputs = build(name)
    expected = run(module, inputs)
    other = BLOCKS[name][0]()
    other.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(run(other, inputs), expected)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict({**module.state_dict(), "surplus": torch.zeros(1)})


@every_block
def test_assigned_state_dict_is_used_by_the_cpp_forward(name):
    module, inputs = build(name)
    other = BLOCKS[name][0]()
    state = {key: value.clone() for key, value in module.state_dict().items()}
    other.load_state_dict(state, assign=True)
    assert torch.equal(run(other, inputs), run(module, inputs))
    for key, value in other.state_dict(keep_vars=True).items():
        assert value.data_ptr() == state[key].data_ptr()


@every_block
def test_deepcopy_and_pickle_give_equal_independent_modules(name):
    module, inputs = build(name)
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        break
    expected = run(module, inputs)
    generator = torch.get_rng_state()
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    assert torch.equal(torch.get_rng_state(), generator)
    for other in copies:
        assert type(other) is type(module) and repr(other) == repr(module)
        assert torch.equal(run(other, inputs), expected)
        assert [p.requires_grad for p in other.parameters()] == [p.requires_grad for p in module.parameters()]
        assert not any(part.training for part in other.modules())
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1)
        assert torch.equal(run(module, inputs), expected)


@every_block
def test_dtype_moves_with_to(name):
    module, inputs = build(name)
    expected = run(module, inputs)
    identities = [id(parameter) for parameter in module.parameters()]
    module.double()
    assert [id(parameter) for parameter in module.parameters()] == identities
    out = run(module, tuple(x.double() for x in inputs))
    assert out.dtype == torch.float64
    references.assert_close(expected, out, 1e-5)
    other = copy.deepcopy(module)
    assert all(p.dtype == torch.float64 for p in other.parameters())
    assert torch.equal(run(other, tuple(x.double() for x in inputs)), out)


@every_block
def test_meta_device_gives_shapes(name):
    if name == "VectorQuantizer":
        pytest.skip("the quantizer looks at its statistics")
    module, inputs = build(name)
    shape = run(module, inputs).shape
    module.to("meta")
    out = run(module, tuple(x.to("meta") for x in inputs))
    assert out.shape == shape and out.is_meta


@every_block
def test_repr_shows_the_configuration(name):
    module, _ = build(name)
    text = repr(module)
    assert text.startswith(name + "(")
    for value in module._arguments.values():
        if name != "ViT5Attention":
            assert repr(value) in text


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam"])
def test_optimizers_train_it(optimizer):
    module, x = attention()
    target = torch.randn_like(x)
    steps = getattr(torch.optim, optimizer)(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        steps.zero_grad()
        loss = (module(x) - target).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        steps.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_frozen_parameters_get_no_gradient():
    module, x = attention()
    module.qkv.requires_grad_(False)
    module(x).sum().backward()
    assert module.qkv.weight.grad is None and module.proj.weight.grad is not None
    module.requires_grad_(False)
    assert not module(x).requires_grad


def test_sequential_hooks_and_saving_whole_modules():
    module, x = attention()
    calls = []
    module.register_forward_hook(lambda m, i, out: calls.append(out.shape))
    module.register_forward_pre_hook(lambda m, i: calls.append("before"))
    module.register_full_backward_hook(lambda m, i, o: calls.append("backward"))
    stack = torch.nn.Sequential(torch.nn.Linear(16, 16), module)
    stack(x).sum().backward()
    assert calls == ["before", x.shape, "backward"]
    file = io.BytesIO()
    torch.save(torch.nn.Sequential(nn.STMLP(4)), file)
    file.seek(0)
    assert isinstance(torch.load(file, weights_only=False)[0], nn.STMLP)


def test_hooks_survive_a_copy():
    module, x = attention()
    module.register_forward_hook(lambda m, i, out: out * 0)
    assert copy.deepcopy(module)(x).abs().max() == 0


def test_a_hook_on_a_part_is_refused_with_the_reason():
    module, _ = attention()
    for register in (
        module.qkv.register_forward_hook,
        module.qkv.register_forward_pre_hook,
        module.qkv.register_full_backward_hook,
    ):
        with pytest.raises(RuntimeError, match="Linear is called by C\\+\\+ code, so a hook"):
            register(lambda *_: None)


def test_an_exchanged_child_is_refused_with_the_reason():
    module, x = attention()
    replacement = torch.nn.Linear(16, 48)
    with pytest.raises(RuntimeError, match="child 'qkv' can't be exchanged"):
        module.qkv = replacement
    with pytest.raises(RuntimeError, match="can't be exchanged"):
        module.add_module("qkv", replacement)
    with pytest.raises(RuntimeError, match="can't be exchanged"):
        del module.qkv
    module._modules["qkv"] = replacement
    with pytest.raises(RuntimeError, match="can't be exchanged"):
        module(x)


def test_an_exchanged_parameter_is_used_and_trained():
    module, x = attention()
    other = copy.deepcopy(module)
    other.proj.weight = torch.nn.Parameter(module.proj.weight.detach() * 2)
    with torch.no_grad():
        module.proj.weight.mul_(2)
    assert torch.equal(other(x), module(x))
    other(x).sum().backward()
    assert other.proj.weight.grad is not None
    with pytest.raises(ValueError, match="must keep its shape"):
        other.proj.weight = torch.nn.Parameter(torch.zeros(3, 3))
        other(x)


def test_a_removed_or_added_parameter_is_refused_with_the_reason():
    module, x = attention()
    module.qkv.bias = torch.nn.Parameter(torch.zeros(48))
    with pytest.raises(RuntimeError, match="'bias' was added"):
        module(x)
    module, x = attention()
    module.proj.bias = None
    with pytest.raises(RuntimeError, match="'bias' was removed"):
        module(x)


def test_functional_call_and_vmapped_style_parameters_work():
    module, x = attention()
    expected = module(x)
    doubled = {name: value.detach() * 2 for name, value in module.named_parameters()}
    other = copy.deepcopy(module)
    other.load_state_dict(doubled)
    assert torch.equal(torch.func.functional_call(module, doubled, (x,)), other(x))
    assert torch.equal(module(x), expected)


def test_parametrized_weights_work():
    module, x = attention()

    class Double(torch.nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 2

    other = copy.deepcopy(module)
    torch.nn.utils.parametrize.register_parametrization(other.proj, "weight", Double())
    with torch.no_grad():
        module.proj.weight.mul_(2)
    assert torch.equal(other(x), module(x))
    other(x).sum().backward()
    assert other.proj.parametrizations.weight.original.grad is not None


class Tied(torch.nn.Module):
    """A head that shares the block's projection."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.head = torch.nn.Linear(16, 48, bias=False)
        self.block = block
        self.head.weight = block.qkv.weight


def test_tied_weights_stay_tied_in_copies():
    module, x = attention()
    tied = Tied(module)
    for other in (tied, copy.deepcopy(tied), pickle.loads(pickle.dumps(tied))):
        assert other.head.weight is other.block.qkv.weight
        with torch.no_grad():
            other.head.weight.zero_()
        assert torch.equal(other.block(x), other.block.proj.bias.expand_as(x))


def test_training_mode_reaches_the_cpp_code():
    references.seed(3)
    module = nn.STTransformerBlock(8, 2, drop=0.5)
    x = torch.randn(2, 3, 4, 8)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))
    module.mlp.train()
    assert not torch.equal(module(x), module(x))
    assert module.mlp.training and not module.attn_spatial.training
    module.train(False)
    assert torch.equal(module(x), module(x))
    module.training = True
    assert torch.equal(module(x), module(x))  # as in torch: the flag of the outer module alone
    copied = copy.deepcopy(module.train())
    assert copied.mlp.training and not torch.equal(copied(x), copied(x))


def test_parts_can_be_called_indexed_and_named():
    references.seed(4)
    model = nn.STTransformer(num_patches_per_frame=4, dim=8, depth=3, num_heads=2)
    x = torch.randn(1, 2, 4, 8)
    h = x
    assert len(model.blocks) == 3
    for block in model.blocks:
        h = block(h)
    assert torch.equal(model.norm(h), model(x))
    assert type(model.blocks[1]).__name__ == "Part" and repr(model.blocks[1]).startswith(
        "STTransformerBlock("
    )
    assert "(fc1): Linear(in_features=8, out_features=32, bias=True)" in repr(model)
    with pytest.raises(NotImplementedError, match="ModuleList can't be called by itself"):
        model.blocks(x)
    with pytest.raises(TypeError, match="part of a C\\+\\+ module"):
        copy.deepcopy(model.blocks[0])


def test_a_subclass_with_its_own_parts_copies_and_trains():
    class WithHead(nn.RoPEAttention):
        def __init__(self, width: int) -> None:
            super().__init__(16, 2, grid_size=2)
            self.head = torch.nn.Linear(16, width)
            self.note = "kept"

        def forward(self, x: Tensor) -> Tensor:
            return self.head(super().forward(x))

    references.seed(5)
    module, x = WithHead(3), torch.randn(2, 8, 16)
    other = copy.deepcopy(module)
    assert other.note == "kept" and torch.equal(other(x), module(x))
    assert other.head.weight is not module.head.weight
    assert set(other.state_dict()) == {"qkv.weight", "proj.weight", "proj.bias", "head.weight", "head.bias"}


def test_autocast_runs_in_bfloat16_and_gradients_stay_float32():
    module, x = attention()
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert module.qkv.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_checkpointing_gives_the_same_gradients(dtype):
    references.seed(6)
    arguments = {"num_patches_per_frame": 4, "dim": 8, "depth": 3, "num_heads": 2}
    plain = nn.STTransformer(**arguments)
    checkpointed = nn.STTransformer(**arguments, gradient_checkpointing=True)
    checkpointed.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 4, 8)
    for module in (plain, checkpointed):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = module(x).square().sum()
        loss.backward()
    for ours, expected in zip(checkpointed.parameters(), plain.parameters(), strict=True):
        references.assert_close(ours.grad, expected.grad, 1e-6)
    out = nn.STTransformer(**arguments, gradient_checkpointing=True)(x.requires_grad_())
    out.sum().backward()  # though the module is gone
    assert x.grad is not None
    module, x = attention()
    x.requires_grad_()
    expected = torch.autograd.grad(module(x).square().sum(), x)[0]
    out = torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(out.square().sum(), x)[0], expected)


def test_wrong_arguments_are_type_errors():
    module, _ = attention()
    for bad in (None, 3, "x", [1.0]):
        with pytest.raises(TypeError):
            module(bad)
    with pytest.raises(TypeError):
        nn.RoPEAttention("sixteen")
