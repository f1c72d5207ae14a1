"""A training step of each model: ours, the same mathematics in plain eager PyTorch, the bare products.

Forward, backward, clipping and AdamW on a batch of 4 clips of 16 frames of 64x64 pixels. Before anything is
timed, the plain model loads our weights, and both must give the same loss and gradients. Both use torch's
fused AdamW. They take turns with the allocator told to keep freed memory
(`genie_cpp.training.keep_freed_memory`, as our trainer does); "plain as is" is the plain model before that,
with the allocator as Python leaves it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matmuls
import plain
import torch
from measure import arguments, in_turns, report

from genie_cpp.models import DynamicsModel, LatentActionModel, VideoTokenizer
from genie_cpp.training import keep_freed_memory

S = plain.Sizes()
STACK = {"depth": S.tokenizer_depth, "dim": S.dim, "heads": S.heads}
CONFIG = {
    "data": {"num_frames": S.frames, "height": S.size, "width": S.size},
    "tokenizer": {
        "patch_size": S.patch,
        "initialization": "random",
        "quantizer": {"num_codes": S.codes, "code_dim": S.code_dim, "kmeans_init": False},
        "encoder": STACK,
        "decoder": STACK,
    },
    "latent_action": {
        "patch_size": S.action_patch,
        "quantizer": {"num_codes": S.actions, "code_dim": S.code_dim, "kmeans_init": False},
        "encoder": STACK,
        "decoder": STACK,
    },
    "dynamics": {
        "action_conditioning": "additive",
        "previous_frame_input": False,
        "transformer": {
            "depth": S.dynamics_depth,
            "dim": S.dim,
            "heads": S.heads,
            "head_dim": S.dim // S.heads,
        },
    },
}

Loss = Callable[[torch.nn.Module], torch.Tensor]


def tokenizer_loss(video: torch.Tensor) -> Loss:
    def loss(model: torch.nn.Module) -> torch.Tensor:
        out = model(video)
        return (out["reconstruction"].float() - out["patches"]).square().sum(-1).mean() + out[
            "quantizer_loss"
        ]

    return loss


def latent_action_loss(video: torch.Tensor) -> Loss:
    def loss(model: torch.nn.Module) -> torch.Tensor:
        out = model(video)
        return (out["prediction"].float() - out["target"]).square().sum(-1).mean() + out["quantizer_loss"]

    return loss


def dynamics_loss(tokens: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor) -> Loss:
    count = int(mask.sum())

    def loss(model: torch.nn.Module) -> torch.Tensor:
        return model.cross_entropy(model.features(tokens, actions, mask), tokens, mask)[0] / count

    return loss


def cases() -> dict[str, tuple[torch.nn.Module, Loss, torch.nn.Module, Loss, list[matmuls.Product]]]:
    """Each model: ours and its loss, the plain one and its loss, and the bare products."""
    torch.manual_seed(0)
    video = torch.rand(S.batch, S.frames, 3, S.size, S.size)
    tokens = torch.randint(S.codes, (S.batch, S.frames, S.side**2))
    actions = torch.randint(S.actions, (S.batch, S.frames - 1))
    mask = torch.rand(tokens.shape) < 0.75
    mask[:, 0] = False
    rows, width = tokens.numel(), 3 * S.patch**2
    masked = int(mask.sum())
    stack = matmuls.transformer(S.tokenizer_depth, S.batch, S.frames, S.side**2, S.dim, S.heads)
    side = S.size // S.action_patch
    action_width, action_rows = 3 * S.action_patch**2, S.batch * S.frames * side**2
    action_stack = matmuls.transformer(S.tokenizer_depth, S.batch, S.frames, side**2, S.dim, S.heads)
    edges = [
        matmuls.linear(2, rows, width, S.dim),
        matmuls.linear(2, rows, S.dim, S.code_dim),
        matmuls.linear(1, rows, S.code_dim, S.codes),
    ]
    return {
        "tokenizer": (
            VideoTokenizer(CONFIG),
            tokenizer_loss(video),
            plain.Tokenizer(S),
            lambda model: model(video),
            [*stack, *stack, *edges],
        ),
        "latent_action": (
            LatentActionModel(CONFIG),
            latent_action_loss(video),
            plain.LatentAction(S),
            lambda model: model(video),
            [*action_stack, *action_stack, matmuls.linear(4, action_rows, action_width, S.dim)],
        ),
        "dynamics": (
            DynamicsModel(CONFIG),
            dynamics_loss(tokens, actions, mask),
            plain.Dynamics(S),
            lambda model: model(tokens, actions, mask),
            [
                *matmuls.transformer(S.dynamics_depth, S.batch, S.frames, S.side**2, S.dim, S.heads),
                matmuls.linear(1, masked, S.dim, S.codes),
            ],
        ),
    }


def check_equal(ours: torch.nn.Module, our_loss: Loss, other: torch.nn.Module, other_loss: Loss) -> None:
    """Raises AssertionError unless both give the same loss and gradients with the same weights."""
    weights = {name: value for name, value in ours.state_dict().items() if name in other.state_dict()}
    other.load_state_dict(weights, strict=True)
    ours.train(), other.train()
    a, b = our_loss(ours), other_loss(other)
    a.backward(), b.backward()
    assert torch.allclose(a, b, rtol=1e-4), f"the losses differ: {a.item()} and {b.item()}"
    theirs = dict(other.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.grad is None:
            continue
        difference = (parameter.grad - theirs[name].grad).norm() / theirs[name].grad.norm().clamp_min(1e-12)
        assert difference <= 1e-2, f"the gradients of {name} differ by {difference:.3g} of their norm"


def stepper(model: torch.nn.Module, loss: Loss, dtype: torch.dtype) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = loss(model)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if quantizer := getattr(model, "quantizer", None):
            if hasattr(quantizer, "update_codebook"):
                quantizer.update_codebook()

    return step


def peak_gib(model: str, which: str, dtype: str) -> float:
    """Peak memory of two steps in a process of their own."""
    command = [sys.executable, __file__, "--peak-of", model, which, dtype]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(model: str, which: str, dtype: str) -> None:
    ours, our_loss, other, other_loss, _ = cases()[model]
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    baseline = high_water_gib()
    step = stepper(*((ours, our_loss) if which == "ours" else (other, other_loss)), getattr(torch, dtype))
    step(), step()
    print(high_water_gib() - baseline)


def high_water_gib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=5)
    parser.add_argument("--models", nargs="+", default=["tokenizer", "latent_action", "dynamics"])
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--peak-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        print_peak(*options.peak_of)
        return
    rows: list[dict[str, Any]] = []
    for name in options.models:
        ours, our_loss, other, other_loss, products = cases()[name]
        check_equal(ours, our_loss, other, other_loss)
        for dtype_name in options.dtype:
            dtype = getattr(torch, dtype_name)
            steps = {"ours": stepper(ours, our_loss, dtype), "plain": stepper(other, other_loss, dtype)}
            keep_freed_memory(False)
            as_is = in_turns({"plain": steps["plain"]}, options.rounds)["plain"]
            keep_freed_memory()
            time = in_turns(steps, options.rounds)
            limit = matmuls.seconds(products, dtype, options.rounds)
            peak = {which: peak_gib(name, which, dtype_name) for which in steps}
            rows.append(
                {
                    "model": name,
                    "dtype": dtype_name,
                    "ours_s": time["ours"],
                    "plain_s": time["plain"],
                    "plain_as_is_s": as_is,
                    "matmuls_s": limit,
                    "ours/matmuls": time["ours"] / limit,
                    "plain/ours": time["plain"] / time["ours"],
                    "plain as is/ours": as_is / time["ours"],
                    "ours_gib": peak["ours"],
                    "plain_gib": peak["plain"],
                    "memory ours/plain": peak["ours"] / peak["plain"],
                }
            )
    report(rows, options.json)


if __name__ == "__main__":
    main()
