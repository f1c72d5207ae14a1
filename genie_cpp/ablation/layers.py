"""What one layer's parts take: attention of all tokens, attention inside areas, projections, MLP."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from genie_cpp.ablation.flops import area_sizes
from genie_cpp.ablation.settings import Ablation, Resolution
from genie_cpp.ablation.sweep import is_out_of_memory, token_grid
from genie_cpp.vision import create_vision_transformer

COLUMNS = ["resolution", "total_tokens", "full_attention_ms", "area_attention_ms", "projections_ms", "mlp_ms",
           "layers", "area_layers", "dtype", "device", "status"]  # fmt: skip


def fastest(functions: list[Callable[[], object]], repeats: int, device: torch.device) -> list[float]:
    """Milliseconds of each, run in turn: the least of `repeats`, after one run that warms up."""
    best = [math.inf] * len(functions)
    for repeat in range(repeats + 1):
        for i, function in enumerate(functions):
            begin = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat > 0:
                best[i] = min(best[i], 1e3 * (time.perf_counter() - begin))
    return best


def time_layers(
    settings: Ablation, resolution: Resolution, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """A row of COLUMNS: the forward pass of a layer on all tokens of one clip."""
    grid = token_grid(settings, resolution)
    tokens = math.prod(grid)
    model = create_vision_transformer(
        settings.model, **{**settings.model_options, "use_area_attention": True}
    ).to(device, dtype)
    arguments = model._arguments
    first, end = arguments["area_attention_layers"] or (0, arguments["depth"] * 3 // 4)
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    row |= {"resolution": resolution.name, "total_tokens": tokens, "layers": arguments["depth"],
            "area_layers": end - first, "dtype": str(dtype).removeprefix("torch."), "device": device.type,
            "status": "ok"}  # fmt: skip
    ids = torch.arange(tokens)[None]
    sizes = area_sizes(ids, grid, settings.spatial_splits, settings.temporal_splits)[0]
    whole, areas = (torch.tensor([0, *s]).cumsum(0).int().to(device) for s in ([tokens], sizes))
    width, heads = arguments["embed_dim"], arguments["num_heads"]
    weights = {name: value for name, value in model.state_dict().items() if name.startswith("blocks.0.")}

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weights[f"blocks.0.{name}.weight"], weights[f"blocks.0.{name}.bias"])

    attend = torch.ops.genie.area_attention
    try:
        x = torch.randn(tokens, width, device=device, dtype=dtype)
        q, k, v = torch.randn(tokens, 3, heads, width // heads, device=device, dtype=dtype).unbind(1)
        with torch.no_grad():
            times = fastest(
                [
                    lambda: attend(q, k, v, whole, tokens),
                    lambda: attend(q, k, v, areas, tokens),
                    lambda: linear("attn.proj", linear("attn.qkv", x)[:, :width]),
                    lambda: linear("mlp.fc2", F.gelu(linear("mlp.fc1", x))),
                ],
                settings.layer_repeats,
                device,
            )
        row |= dict(zip(COLUMNS[2:6], times, strict=True))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        row["status"] = "out of memory"
    return row
