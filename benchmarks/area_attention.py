"""Area attention against full attention at ViT-L width, beside what their FLOPs allow.

    python benchmarks/area_attention.py --tokens 512 2048 --json area.json

Both sides run in one process, one after the other, again and again; each figure is the fastest of its runs.
Full attention is the faster of ours and torch's scaled_dot_product_attention, with the same weights.
Rows are written as they are measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from measure import in_turns
from torch import Tensor

from genie_cpp import nn
from genie_cpp.ablation.flops import flop_bound
from genie_cpp.vision import VisionTransformer, create_vision_transformer

WIDTH, HEADS, LAYERS, AREAS = 1024, 16, 24, 4
GRIDS = {512: (2, 16, 16), 1152: (2, 24, 24), 2048: (8, 16, 16), 4608: (8, 24, 24), 18432: (32, 24, 24)}


def fastest(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Seconds of each, interleaved."""
    return list(in_turns({str(i): f for i, f in enumerate(functions)}, repeats, warmup=0).values())


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


def sdpa_encoder(model: VisionTransformer, video: Tensor) -> Tensor:
    """The encoder in plain PyTorch with scaled_dot_product_attention, on the model's own weights."""
    weights = dict(model.named_parameters())

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    kernel = weights["patch_embed.proj.weight"]
    embedded = F.conv3d(video, kernel, weights["patch_embed.proj.bias"], stride=kernel.shape[2:])
    height, width = embedded.shape[3:]
    x = embedded.flatten(2).transpose(1, 2)
    ids = torch.arange(x.shape[1])
    for i in range(LAYERS):
        block = f"blocks.{i}."
        qkv = linear(f"{block}attn.qkv", norm(f"{block}norm1", x)).unflatten(2, (3, HEADS, -1))
        q, k = (torch.ops.genie.rope_3d(y, ids, height, width).transpose(1, 2) for y in qkv.unbind(2)[:2])
        attended = F.scaled_dot_product_attention(q, k, qkv[:, :, 2].transpose(1, 2))
        x = x + linear(f"{block}attn.proj", attended.transpose(1, 2).flatten(2))
        x = x + linear(f"{block}mlp.fc2", F.gelu(linear(f"{block}mlp.fc1", norm(f"{block}norm2", x))))
    return norm("norm", x)


def encoder(tokens: int, dtype: torch.dtype, backward: bool, repeats: int) -> dict[str, Any]:
    frames, rows, columns = GRIDS[tokens]
    models = []
    for areas in (False, True):
        model = create_vision_transformer("vit_large", use_area_attention=areas).to(dtype)
        models.append(model)
    models[1].load_state_dict(models[0].state_dict())
    video = torch.randn(1, 3, 2 * frames, 16 * rows, 16 * columns, dtype=dtype)

    def run(forward: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def call() -> None:
            out = forward(video)
            if backward:
                out.sum().backward()
                models[0].zero_grad()
                models[1].zero_grad()

        return call

    with torch.no_grad():
        difference = (sdpa_encoder(models[0], video) - models[0](video)).abs().max().item()
    assert dtype != torch.float32 or difference <= 1e-3, f"SDPA's encoder differs by {difference}"
    plain = partial(sdpa_encoder, models[0])
    full, sdpa, area = fastest([run(forward) for forward in (models[0], plain, models[1])], repeats)
    ids = torch.arange(tokens)
    sizes = torch.bincount(nn.area_ids(ids, frames, rows, columns), minlength=AREAS).tolist()
    return {"full_ms": full * 1e3, "sdpa_ms": sdpa * 1e3, "area_ms": area * 1e3, "area_sizes": sizes,
            "speedup": min(full, sdpa) / area,
            "flop_bound": flop_bound(sizes, WIDTH, 18, LAYERS)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 1152, 2048], choices=list(GRIDS))
    parser.add_argument("--what", nargs="+", default=["core", "encoder"], choices=["core", "encoder"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--passes", nargs="+", default=["forward", "both"], choices=["forward", "both"])
    parser.add_argument("--areas", nargs="+", default=["even", "uneven"], choices=["even", "uneven"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the rows")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    rows: list[dict[str, Any]] = []
    for what in options.what:
        for tokens in options.tokens:
            for passes in options.passes:
                backward = passes == "both"
                for uneven in [areas == "uneven" for areas in options.areas] if what == "core" else [False]:
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
