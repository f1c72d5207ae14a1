"""Properties of area attention that a sweep takes for granted, on the device and in the type it runs in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genie_cpp import nn
from genie_cpp.errors import GenieError
from genie_cpp.vision import VisionTransformer

GRID = (4, 6, 6)
TOKENS = 4 * 6 * 6
SIZES = {"patch_size": 2, "tubelet_size": 2, "embed_dim": 48, "depth": 2, "num_heads": 2}


def _encoder(device: torch.device, **options: object) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(**{**SIZES, **options})  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.2)
    return model.to(device).eval()


def _video(device: torch.device) -> Tensor:
    return torch.randn(2, 3, 8, 12, 12, generator=torch.Generator().manual_seed(1)).to(device)


def _mask(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.stack([torch.randperm(TOKENS, generator=generator)[:50] for _ in range(2)]).to(device)


def _run(model: VisionTransformer, video: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        result = model(video, mask)
    assert isinstance(result, Tensor)
    return result


def one_area_is_full_attention(device: torch.device) -> bool:
    full = _encoder(device)
    one = _encoder(device, use_area_attention=True, area_spatial_splits=1, area_temporal_splits=1)
    one.load_state_dict(full.state_dict())
    video, mask = _video(device), _mask(device).sort(1).values
    return torch.equal(_run(full, video, mask), _run(one, video, mask))


def areas_are_isolated_to_the_bit(device: torch.device) -> bool:
    model = _encoder(device, use_area_attention=True, area_attention_layers=(0, 2))
    video, mask = _video(device), _mask(device)
    changed = video.clone()
    changed[:, :, 4:, 6:] += 1  # the last area's pixels
    before, after = _run(model, video, mask), _run(model, changed, mask)
    last = nn.area_ids(mask, *GRID, 2, 2) == 3
    return torch.equal(before[~last], after[~last]) and not torch.equal(before[last], after[last])


def uneven_areas_are_dense_masks(device: torch.device) -> bool:
    torch.manual_seed(3)
    full = nn.RoPEAttention(48, 2, grid_size=6).to(device)
    area = nn.RoPEAreaAttention(48, 2, grid_size=6).to(device)
    area.load_state_dict(full.state_dict())
    mask, x = _mask(device), torch.randn(2, 50, 48, device=device)
    ids = nn.area_ids(mask, *GRID, 2, 2)
    visible = (ids[:, :, None] == ids[:, None, :])[:, None]
    where = {"mask": mask, "T": GRID[0], "H_patches": GRID[1], "W_patches": GRID[2]}
    with torch.no_grad():
        difference = (area(x, **where) - full(x, **where, attn_mask=visible)).abs().max().item()
    return difference <= 1e-5


def the_order_of_tokens_does_not_matter(device: torch.device) -> bool:
    model = _encoder(device, use_area_attention=True)
    video, mask = _video(device), _mask(device)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(4)).to(device)
    return torch.equal(_run(model, video, mask)[:, order], _run(model, video, mask[:, order]))


def gradients_are_finite_and_reach_all_weights(device: torch.device) -> bool:
    model = _encoder(device, use_area_attention=True).train()
    output = model(_video(device), _mask(device))
    assert isinstance(output, Tensor)
    output.square().sum().backward()
    return all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


CHECKS: list[Callable[[torch.device], bool]] = [
    one_area_is_full_attention,
    areas_are_isolated_to_the_bit,
    uneven_areas_are_dense_masks,
    the_order_of_tokens_does_not_matter,
    gradients_are_finite_and_reach_all_weights,
]


def run_checks(device: torch.device) -> dict[str, bool]:
    """Each check's outcome by name. Raises GenieError where one fails: figures would mean nothing."""
    outcome = {check.__name__: check(device) for check in CHECKS}
    failed = [name for name, passed in outcome.items() if not passed]
    if failed:
        raise GenieError(f"unit checks failed on {device}: {', '.join(failed)}; the sweep would mean nothing")
    return outcome
