"""The V-JEPA 2 encoder and predictor against a dense-mask reference in float64."""

from __future__ import annotations

import copy
import math
from collections import Counter

import attention_references as references
import pytest
import torch
import vision_reference
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genie_cpp import GenieError
from genie_cpp.vision import (
    VIT_SIZES,
    VisionPredictor,
    VisionTransformer,
    create_vision_transformer,
    load_vjepa_checkpoint,
)

HEADS, DIM, DEPTH = 2, 24, 4
GRID = (5, 6, 4)  # tokens; no split of 2 divides 5 evenly
TOKENS = math.prod(GRID)
SIZES = {"patch_size": 2, "tubelet_size": 2, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS}


def make(**options: object) -> VisionTransformer:
    """An encoder whose weights are large enough that attention matters."""
    model = VisionTransformer(**{**SIZES, **options})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.2)
            elif "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def video(batch: int = 2, grid: tuple[int, int, int] = GRID) -> Tensor:
    return torch.randn(batch, 3, 2 * grid[0], 2 * grid[1], 2 * grid[2], dtype=torch.float64)


def draw_mask(batch: int, count: int, tokens: int = TOKENS) -> Tensor:
    """Another set for each sample, unsorted."""
    return torch.stack([torch.randperm(tokens)[:count] for _ in range(batch)])


def lopsided_mask(batch: int = 2) -> Tensor:
    """One area whole, one with a single token, the others empty; another one for each sample."""
    area = torch.tensor([vision_reference.area_of(i, GRID, 2, 2) for i in range(TOKENS)])
    rows = [
        torch.cat([(area == b % 4).nonzero().flatten()[:15], (area == 3 - b % 4).nonzero()[0]])
        for b in range(batch)
    ]
    return torch.stack(rows)


def compare_with_gradients(
    model: torch.nn.Module, ours, expected, x: Tensor, dtype: torch.dtype, tolerance: float | None = None
) -> None:
    """Outputs, and gradients by input and weights, of `ours(x)` in `dtype` and of `expected(weights, x)`."""
    tolerance = references.TOLERANCE[dtype] if tolerance is None else tolerance
    model = model.to(dtype)
    own = x.detach().to(dtype).requires_grad_()
    exact = own.detach().double().requires_grad_()
    weights = {name: p.detach().double().requires_grad_() for name, p in model.named_parameters()}
    result, reference = ours(own), expected(weights, exact)
    references.assert_close(result, reference, tolerance)
    upstream = torch.randn_like(reference)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parameters = dict(model.named_parameters())
    grads = torch.autograd.grad(
        result, [own, *(parameters[n] for n in names)], upstream.to(dtype), allow_unused=True
    )
    exact_grads = torch.autograd.grad(
        reference, [exact, *(weights[n] for n in names)], upstream.to(dtype).double(), allow_unused=True
    )
    for name, a, b in zip(["x", *names], grads, exact_grads, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            references.assert_close(a, b, tolerance * 4, f"gradient of {name}")


MASKS = {
    "none": lambda: [],
    "random": lambda: [draw_mask(2, 37)],
    "two masks": lambda: [draw_mask(2, 20), draw_mask(2, 20)],
    "lopsided": lambda: [lopsided_mask()],
    "one token": lambda: [draw_mask(2, 1)],
    "repeated": lambda: [torch.randint(0, TOKENS, (2, 30))],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("splits", [None, (1, 1), (2, 2), (3, 4)])
def test_encoder_agrees_with_dense_masks(splits, masks, dtype):
    references.seed(1)
    options = {"use_area_attention": splits is not None, "area_residual_scale": 0.7}
    if splits:
        options |= {"area_spatial_splits": splits[0], "area_temporal_splits": splits[1]}
    model, ids = make(**options), MASKS[masks]()
    compare_with_gradients(
        model,
        lambda x: model(x, ids),
        lambda w, x: vision_reference.encoder(w, x, ids, HEADS, range(0, 3), splits, 0.7)[-1],
        video(),
        dtype,
    )


def test_bfloat16_stays_near_the_exact_result():
    references.seed(2)
    model, ids = make(use_area_attention=True).bfloat16(), [draw_mask(2, 37)]
    weights = {name: p.detach().double() for name, p in model.named_parameters()}
    x = video().bfloat16()
    exact = vision_reference.encoder(weights, x.double(), ids, HEADS, range(0, 3), (2, 2))[-1]
    ours = model(x, ids)
    assert ours.dtype == torch.bfloat16
    references.assert_close(ours, exact, references.TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize(
    "layers,effective", [(None, range(0, 3)), ((0, 4), range(0, 4)), ((1, 2), range(1, 2))]
)
def test_area_layers_are_those_asked_for(layers, effective):
    references.seed(3)
    model, x = make(use_area_attention=True, area_attention_layers=layers).double(), video()
    expected = vision_reference.encoder(dict(model.named_parameters()), x, [], HEADS, effective, (2, 2))[-1]
    references.assert_close(model(x), expected, 1e-10)


@pytest.mark.parametrize("areas", [False, True])
def test_tapped_layers_are_normalised_and_in_the_masks_order(areas):
    references.seed(4)
    model, x, ids = make(use_area_attention=areas, out_layers=[0, 2, 3]).double(), video(), draw_mask(2, 25)
    layers = vision_reference.encoder(
        dict(model.named_parameters()), x, [ids], HEADS, range(0, 3), (2, 2) if areas else None
    )
    outputs = model(x, ids)
    assert len(outputs) == 3
    for output, layer in zip(outputs, (0, 2, 3), strict=True):
        references.assert_close(output, layers[layer], 1e-10, f"layer {layer}")


@pytest.mark.parametrize("mask", [None, "random", "lopsided"])
def test_one_area_equals_full_attention_to_the_bit(mask):
    references.seed(5)
    one = make(use_area_attention=True, area_spatial_splits=1, area_temporal_splits=1)
    full = make()
    full.load_state_dict(one.state_dict())
    ids = None if mask is None else MASKS[mask]()[0].sort(1).values
    x = video().float()
    assert torch.equal(one(x, ids), full(x, ids))


def test_changing_one_area_leaves_the_others_bit_identical():
    references.seed(6)
    model = make(use_area_attention=True, area_attention_layers=(0, DEPTH)).eval()
    ids, x = draw_mask(2, 60), video().float()
    area = vision_reference.same_area(ids, GRID, (2, 2))
    before = model(x, ids)
    changed = x.clone()
    changed[:, :, 4:, 6:] = torch.randn_like(changed[:, :, 4:, 6:]) * 50  # the last area's pixels
    after = model(changed, ids)
    last = torch.tensor([[vision_reference.area_of(int(i), GRID, 2, 2) == 3 for i in row] for row in ids])
    assert last.any() and not last.all() and not area.all()
    assert torch.equal(before[~last], after[~last])
    assert not torch.equal(before[last], after[last])


def test_a_sample_does_not_depend_on_the_others_masks():
    references.seed(7)
    model, x, ids = make(use_area_attention=True).eval(), video(3).float(), draw_mask(3, 40)
    together = model(x, ids)
    for b in range(3):
        alone = model(x[b : b + 1], ids[b : b + 1])
        references.assert_close(together[b : b + 1], alone, 1e-6)


def test_the_order_of_a_mask_only_orders_the_result():
    references.seed(8)
    model, x, ids = make(use_area_attention=True), video().float(), draw_mask(2, 40)
    order = torch.randperm(40)
    assert torch.equal(model(x, ids)[:, order], model(x, ids[:, order]))


class OpCounter(TorchDispatchMode):
    """How often each operation runs."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_tokens_are_sorted_once_and_layers_neither_gather_nor_pad_nor_ask_for_numbers():
    references.seed(18)
    x, ids, counted = video().float(), draw_mask(2, 37), {}
    for depth in (2, 8):
        model = make(depth=depth, use_area_attention=True)
        with OpCounter() as counter, torch.no_grad():
            model(x, ids)
        counted[depth] = counter.counts
    assert counted[2]["sort"] == 1 and counted[2]["area_attention"] == 2 and counted[8]["area_attention"] == 8
    for name in ("sort", "argsort", "index_select", "index", "gather", "scatter_", "cat", "constant_pad_nd",
                 "_local_scalar_dense", "nonzero", "_to_copy"):  # fmt: skip
        assert counted[2][name] == counted[8][name], name


def test_uneven_areas_are_not_equal_chunks_of_the_sorted_tokens():
    references.seed(19)
    ids = lopsided_mask().sort(1).values  # areas of 15 and 1 tokens; four equal chunks would be of 4
    model, x = make(depth=1, use_area_attention=True, area_attention_layers=(0, 1)).eval(), video().float()
    alone = (vision_reference.same_area(ids, GRID, (2, 2))[:, 0].sum(2) == 1).nonzero()
    before = model(x, ids)
    for b, n in alone.tolist():
        single = model(x[b : b + 1], ids[b : b + 1, n : n + 1])
        references.assert_close(before[b, n], single[0, 0], 1e-6)
    assert len(alone) == 2


@pytest.mark.parametrize("splits", [None, (2, 2)])
@pytest.mark.parametrize("counts", [(30, 20), (1, 50), (70, 50)])
def test_predictor_answers_in_the_order_of_its_mask(counts, splits):
    references.seed(9)
    model = VisionPredictor(
        (12, 8), 2, 10, 2, embed_dim=DIM, predictor_embed_dim=16, depth=4, num_heads=2,
        use_area_attention=splits is not None,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    both = draw_mask(2, sum(counts))
    seen, hidden = both[:, : counts[0]], both[:, counts[0] :]
    compare_with_gradients(
        model,
        lambda x: model(x, seen, hidden, mask_index=3),  # 3 modulo 2 mask tokens is 1
        lambda w, x: vision_reference.predictor(w, x, seen, hidden, 2, GRID, 1, range(0, 3), splits),
        torch.randn(2, counts[0], DIM),
        torch.float64,
    )


def test_predictor_takes_several_masks_at_once():
    references.seed(10)
    model = VisionPredictor((12, 8), 2, 10, 2, embed_dim=DIM, predictor_embed_dim=16, depth=2, num_heads=2)
    seen, hidden = [draw_mask(2, 9) for _ in range(2)], [draw_mask(2, 7) for _ in range(2)]
    x = torch.randn(4, 9, DIM)
    together = model(x, seen, hidden, 0)
    for i in range(2):
        alone = model(x[2 * i : 2 * i + 2], seen[i], hidden[i], 0)
        references.assert_close(together[2 * i : 2 * i + 2], alone, 1e-6)


@pytest.mark.parametrize("area", [False, True])
def test_checkpointing_changes_no_gradient(area):
    references.seed(11)
    plain = make(use_area_attention=area, drop_path_rate=0.3).double()
    saving = make(use_area_attention=area, drop_path_rate=0.3, use_activation_checkpointing=True).double()
    saving.load_state_dict(plain.state_dict())
    x, ids = video(), draw_mask(2, 33)
    gradients = []
    for model in (plain, saving):
        torch.manual_seed(0)
        out = model(x, ids)
        gradients.append(torch.autograd.grad(out.square().sum(), list(model.parameters())))
    for a, b in zip(*gradients, strict=True):
        references.assert_close(a, b, 1e-12)


def test_drop_path_drops_whole_samples_in_training_only():
    references.seed(12)
    model = make(depth=2, drop_path_rate=0.9, use_area_attention=True)
    x = video(1).float().expand(12, -1, -1, -1, -1)
    dropped = model.train()(x)
    assert len({round(float(row.detach().double().sum()), 6) for row in dropped}) > 1
    kept = model.eval()(x)
    assert torch.allclose(kept, kept[:1].expand_as(kept), atol=1e-6)


def test_weights_start_as_in_the_original():
    references.seed(13)
    model = VisionTransformer(patch_size=4, embed_dim=192, depth=8, num_heads=3)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.dim() >= 2:
            divisor = 1.0
            if name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
                divisor = math.sqrt(2 * (int(name.split(".")[1]) + 1))
            assert abs(parameter.std().item() * divisor / 0.02 - 1) <= 0.05, name
        else:
            assert (parameter == 1).all(), name


def test_named_sizes_are_the_originals():
    model = create_vision_transformer("vit_tiny", patch_size=8, depth=1)
    assert model.embed_dim == 192 and len(model.blocks) == 1
    assert VIT_SIZES["vit_large"] == {"embed_dim": 1024, "depth": 24, "num_heads": 16}
    assert int(1408 * VIT_SIZES["vit_giant_xformers"]["mlp_ratio"]) == 6144
    with pytest.raises(ValueError, match="unknown encoder 'vit_xxl'; there are: vit_tiny"):
        create_vision_transformer("vit_xxl")


def test_state_dict_has_the_originals_names():
    model = VisionTransformer(**{**SIZES, "depth": 1}, use_area_attention=True)
    parts = [("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    names = [f"blocks.0.{part}" for part in parts[0]] + ["patch_embed.proj", "norm"]
    assert set(model.state_dict()) == {f"{n}.{kind}" for n in names for kind in ("weight", "bias")}
    assert model.state_dict()["patch_embed.proj.weight"].shape == (DIM, 3, 2, 2, 2)
    predictor = VisionPredictor(
        (12, 8), 2, 10, 2, embed_dim=DIM, predictor_embed_dim=16, depth=1, num_heads=2
    )
    kept = [name for name in predictor.state_dict() if not name.startswith("predictor_blocks.0.")]
    assert sorted(kept) == sorted(
        ["mask_tokens.0", "mask_tokens.1"]
        + [f"predictor_{n}.{kind}" for n in ("embed", "norm", "proj") for kind in ("weight", "bias")]
    )


def test_copies_and_exchanged_weights_work():
    references.seed(14)
    model, x = make(use_area_attention=True), video().float()
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    other = make(use_area_attention=True)
    result = torch.func.functional_call(model, dict(other.named_parameters()), (x,))
    assert torch.equal(result, other(x))


# Checkpoints


def checkpoint(tmp_path, model: torch.nn.Module, **changes: object):
    """As facebookresearch/vjepa2 writes it."""
    weights = {f"module.backbone.{name}": value for name, value in model.state_dict().items()}
    path = tmp_path / "latest.pt"
    torch.save({"target_encoder": weights, "encoder": {}, "opt": {"state": {}}, "epoch": 3, **changes}, path)
    return path


def test_a_vjepa_checkpoint_loads_and_is_reported(tmp_path):
    references.seed(15)
    model, other, x = make(), make(use_area_attention=True), video().float()
    report = load_vjepa_checkpoint(other, checkpoint(tmp_path, model))
    assert report.section == "target_encoder" and report.skipped == ["encoder", "epoch", "opt"]
    assert report.loaded == sorted(model.state_dict()) and not report.missing and not report.unexpected
    full = make()
    full.load_state_dict(other.state_dict())
    assert torch.equal(full(x), model(x))


def test_a_checkpoint_that_does_not_fit_is_refused_whole_unless_told_otherwise(tmp_path):
    references.seed(16)
    model, deeper = make(), make(depth=DEPTH + 1)
    weights = {f"module.{n}": w for n, w in model.state_dict().items() if n != "norm.bias"}
    weights |= {"module.pos_embed": torch.zeros(1, 4, DIM), "module.norm.weight": torch.zeros(3)}
    path = checkpoint(tmp_path, model, encoder=weights)
    before = {name: value.clone() for name, value in deeper.state_dict().items()}
    with pytest.raises(
        GenieError, match="does not fit the model.*13 missing.*unexpected: pos_embed.*mismatched: norm.weight"
    ):
        load_vjepa_checkpoint(deeper, path, section="encoder")
    assert all(torch.equal(before[n], w) for n, w in deeper.state_dict().items())
    report = load_vjepa_checkpoint(deeper, path, section="encoder", strict=False)
    assert report.unexpected == ["pos_embed"] and report.mismatched == ["norm.weight"]
    assert "norm.bias" in report.missing and f"blocks.{DEPTH}.norm1.weight" in report.missing
    assert torch.equal(
        deeper.state_dict()["blocks.0.attn.qkv.weight"], model.state_dict()["blocks.0.attn.qkv.weight"]
    )


def test_wrong_checkpoints_are_named(tmp_path):
    model = make()
    with pytest.raises(GenieError, match="there is no such checkpoint"):
        load_vjepa_checkpoint(model, tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(GenieError, match="can't be read as a torch checkpoint"):
        load_vjepa_checkpoint(model, tmp_path / "text.pt")
    path = checkpoint(tmp_path, model)
    with pytest.raises(
        GenieError, match="has no section 'classifier'; there are: target_encoder, encoder, opt"
    ):
        load_vjepa_checkpoint(model, path, section="classifier")
    predictor = VisionPredictor(
        (12, 8), 2, 10, 2, embed_dim=DIM, predictor_embed_dim=16, depth=1, num_heads=2
    )
    with pytest.raises(GenieError, match="none of its sections is predictor"):
        load_vjepa_checkpoint(predictor, path)


# Errors

VIDEO, IDS = torch.zeros(2, 3, 4, 4, 4), torch.zeros(2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    "x,masks,error,message",
    [
        (VIDEO[0], None, ValueError, r"video \(B,3,T,H,W\), got \[3, 4, 4, 4\]"),
        (VIDEO[:, :2], None, ValueError, r"got \[2, 2, 4, 4, 4\]"),
        (VIDEO.byte(), None, TypeError, "floating-point video, got"),
        (VIDEO[:, :, :3], None, ValueError, "doesn't divide into tubelets of 2 frames of 2 x 2"),
        (VIDEO[..., :3], None, ValueError, "video of 4 frames of 4 x 3 pixels"),
        (VIDEO, IDS.float(), TypeError, "int64 token ids, got Float"),
        (VIDEO, IDS[:1], ValueError, r"must all be \(B,K\) with B = 2"),
        (VIDEO, [IDS, IDS[:, :2]], ValueError, r"one K, got \[2, 2\]"),
        (VIDEO, IDS + 8, IndexError, "in 0..7 for a grid of 2 x 2 x 2, got 8..8"),
        (VIDEO, IDS - 1, IndexError, "got -1..-1"),
    ],
)
@pytest.mark.parametrize("areas", [False, True])
def test_wrong_input_is_refused(x, masks, error, message, areas):
    with pytest.raises(error, match=message):
        VisionTransformer(**SIZES, use_area_attention=areas)(x, masks)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"num_heads": 5}, "dim=24 is not divisible by num_heads=5"),
        ({"out_layers": [4]}, r"out_layers must be in 0..3, got 4"),
        ({"out_layers": [2, 1]}, "out_layers must rise"),
        ({"area_attention_layers": (2, 5)}, r"end <= depth 4, got \[2, 5\]"),
        ({"area_attention_layers": (1,)}, r"is \(start, end\), got \(1,\)"),
        ({"use_area_attention": True, "area_spatial_splits": 0}, "at most 1024, got 0 and 2"),
        ({"drop_path_rate": 1.0}, r"drop_prob must be in \[0, 1\)"),
        ({"patch_size": 0}, "at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VisionTransformer(**{**SIZES, **options})


def test_predictor_refuses_what_does_not_fit():
    model = VisionPredictor((4, 4), 2, 4, 2, embed_dim=DIM, predictor_embed_dim=16, depth=1, num_heads=2)
    x = torch.zeros(2, 3, DIM)
    with pytest.raises(ValueError, match=r"expected x \(R,K,24\)"):
        model(x[..., 1:], IDS, IDS)
    with pytest.raises(ValueError, match="as many masks_y as masks_x"):
        model(x, IDS, [IDS, IDS])
    with pytest.raises(ValueError, match="masks_x hold 2 x 2 token ids"):
        model(x, IDS[:, :2], IDS)
    with pytest.raises(IndexError, match=r"in 0\.\.7"):
        model(x, IDS, IDS + 8)
