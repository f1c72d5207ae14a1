"""Area attention against full attention at ViT-L width, beside what their FLOPs allow.

    python benchmarks/area_attention.py --tokens 512 2048 --json area.json

Both sides run in one process, one after the other, again and again; each figure is the fastest of its runs.
The core's full attention is the faster of ours and torch's scaled_dot_product_attention, the encoder's ours.
Rows are written as they are measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genie_cpp import nn
from genie_cpp.vision import create_vision_transformer

WIDTH, HEADS, AREAS = 1024, 16, 4
GRIDS = {512: (2, 16, 16), 1152: (2, 24, 24), 2048: (8, 16, 16), 4608: (8, 24, 24), 18432: (32, 24, 24)}


def fastest(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Seconds of each, interleaved."""
    best = [float("inf")] * len(functions)
    for _ in range(repeats):
        for i, function in enumerate(functions):
            begin = time.perf_counter()
            function()
            best[i] = min(best[i], time.perf_counter() - begin)
    return best


def flop_bound(sizes: list[int], area_layers: int, layers: int) -> float:
    """From a layer's FLOPs: 24 N D^2 in linear layers, 4 n^2 D in each segment's attention."""
    tokens = sum(sizes)
    linear = 24 * tokens * WIDTH**2
    full = linear + 4 * tokens**2 * WIDTH
    area = linear + 4 * sum(n * n for n in sizes) * WIDTH
    return layers * full / (area_layers * area + (layers - area_layers) * full)


def area_sizes(tokens: int, uneven: bool) -> list[int]:
    """Even areas, or such as a mask leaves."""
    shares = [0.4, 0.3, 0.2, 0.1] if uneven else [0.25] * 4
    sizes = [int(tokens * share) for share in shares]
    sizes[0] += tokens - sum(sizes)
    return sizes


def core(tokens: int, dtype: torch.dtype, backward: bool, uneven: bool, repeats: int) -> dict[str, Any]:
    qkv = torch.randn(tokens, 3, HEADS, WIDTH // HEADS, dtype=dtype)
    packed = [x.requires_grad_(backward) for x in qkv.unbind(1)]
    dense = [x.detach().transpose(0, 1)[None].contiguous().requires_grad_(backward) for x in packed]
    sizes = area_sizes(tokens, uneven)
    whole, areas = (torch.tensor([0, *s]).cumsum(0).int() for s in ([tokens], sizes))

    def run(function: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], None]:
        def call() -> None:
            out = function(*inputs)
            if backward:
                torch.autograd.grad(out, inputs, torch.ones_like(out))

        return call

    attend = torch.ops.genie.area_attention
    ours, theirs, area = fastest(
        [
            run(lambda *x: attend(*x, whole, tokens), packed),
            run(torch.nn.functional.scaled_dot_product_attention, dense),
            run(lambda *x: attend(*x, areas, tokens), packed),
        ],
        repeats,
    )
    allowed = tokens**2 / sum(n * n for n in sizes)
    return {"full_ms": ours * 1e3, "sdpa_ms": theirs * 1e3, "area_ms": area * 1e3, "area_sizes": sizes,
            "speedup": min(ours, theirs) / area, "flop_bound": allowed}  # fmt: skip


def encoder(tokens: int, dtype: torch.dtype, backward: bool, repeats: int) -> dict[str, Any]:
    frames, rows, columns = GRIDS[tokens]
    models = []
    for areas in (False, True):
        model = create_vision_transformer("vit_large", use_area_attention=areas).to(dtype)
        models.append(model)
    models[1].load_state_dict(models[0].state_dict())
    video = torch.randn(1, 3, 2 * frames, 16 * rows, 16 * columns, dtype=dtype)

    def run(model: torch.nn.Module) -> Callable[[], None]:
        def call() -> None:
            out = model(video)
            if backward:
                out.sum().backward()
                model.zero_grad()

        return call

    full, area = fastest([run(model) for model in models], repeats)
    ids = torch.arange(tokens)
    sizes = torch.bincount(nn.area_ids(ids, frames, rows, columns), minlength=AREAS).tolist()
    return {"full_ms": full * 1e3, "area_ms": area * 1e3, "area_sizes": sizes, "speedup": full / area,
            "flop_bound": flop_bound(sizes, 18, 24)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 1152, 2048], choices=list(GRIDS))
    parser.add_argument("--what", nargs="+", default=["core", "encoder"], choices=["core", "encoder"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--passes", nargs="+", default=["forward", "both"], choices=["forward", "both"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the rows")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    rows: list[dict[str, Any]] = []
    for what in options.what:
        for tokens in options.tokens:
            for passes in options.passes:
                backward = passes == "both"
                for uneven in (False, True) if what == "core" else (False,):
                    torch.manual_seed(0)
                    with torch.set_grad_enabled(backward):
                        if what == "core":
                            result = core(tokens, dtype, backward, uneven, options.repeats)
                        else:
                            result = encoder(tokens, dtype, backward, options.repeats)
                    rows.append({"what": what, "tokens": tokens, "pass": passes, "dtype": options.dtype,
                                 "threads": torch.get_num_threads(), **result})  # fmt: skip
                    print(json.dumps(rows[-1]), flush=True)
                    if options.json:
                        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
