"""A training step of each model: ours, the same mathematics in plain eager PyTorch, the bare products.

Forward, backward, clipping and AdamW on a batch of 4 clips of 16 frames of 64x64 pixels. Before anything is
timed, the plain model loads our weights, and both must give the same loss and gradients. Both use torch's
fused AdamW. They and the products take turns with the allocator told to keep freed memory
(`genie_cpp.training.keep_freed_memory`, as our trainer does); "plain as is" is the plain model before that,
with the allocator as Python leaves it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import matmuls
import measure
import plain
import torch
from measure import arguments, in_turns, report

from genie_cpp.models import DynamicsModel, LatentActionModel, VideoTokenizer
from genie_cpp.training import keep_freed_memory

MODELS = ("tokenizer", "latent_action", "dynamics")


def config(s: plain.Sizes) -> dict[str, Any]:
    stack = {"depth": s.tokenizer_depth, "dim": s.dim, "heads": s.heads}
    return {
        "data": {"num_frames": s.frames, "height": s.size, "width": s.size},
        "tokenizer": {
            "patch_size": s.patch,
            "initialization": "random",
            "quantizer": {"num_codes": s.codes, "code_dim": s.code_dim, "kmeans_init": False},
            "encoder": stack,
            "decoder": stack,
        },
        "latent_action": {
            "patch_size": s.action_patch,
            "quantizer": {"num_codes": s.actions, "code_dim": s.code_dim, "kmeans_init": False},
            "encoder": stack,
            "decoder": stack,
        },
        "dynamics": {
            "action_conditioning": "additive",
            "previous_frame_input": False,
            "transformer": {
                "depth": s.dynamics_depth,
                "dim": s.dim,
                "heads": s.heads,
                "head_dim": s.dim // s.heads,
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


Case = tuple[torch.nn.Module, Loss, torch.nn.Module, Loss, list[matmuls.Product]]


def tokenizer_case(s: plain.Sizes) -> Case:
    video = torch.rand(s.batch, s.frames, 3, s.size, s.size)
    rows, width = s.batch * s.frames * s.side**2, 3 * s.patch**2
    stack = matmuls.transformer(s.tokenizer_depth, s.batch, s.frames, s.side**2, s.dim, s.heads)
    edges = [
        matmuls.linear(2, rows, width, s.dim),
        matmuls.linear(2, rows, s.dim, s.code_dim),
        matmuls.linear(1, rows, s.code_dim, s.codes),
    ]
    products = [*stack, *stack, *edges]
    ours, other = VideoTokenizer(config(s)), plain.Tokenizer(s)
    return ours, tokenizer_loss(video), other, lambda model: model(video), products


def latent_action_case(s: plain.Sizes) -> Case:
    video = torch.rand(s.batch, s.frames, 3, s.size, s.size)
    side = s.size // s.action_patch
    width, rows = 3 * s.action_patch**2, s.batch * s.frames * side**2
    stack = matmuls.transformer(s.tokenizer_depth, s.batch, s.frames, side**2, s.dim, s.heads)
    products = [*stack, *stack, matmuls.linear(4, rows, width, s.dim)]
    ours, other = LatentActionModel(config(s)), plain.LatentAction(s)
    return ours, latent_action_loss(video), other, lambda model: model(video), products


def dynamics_case(s: plain.Sizes) -> Case:
    tokens = torch.randint(s.codes, (s.batch, s.frames, s.side**2))
    actions = torch.randint(s.actions, (s.batch, s.frames - 1))
    mask = torch.rand(tokens.shape) < 0.75
    mask[:, 0] = False
    products = [
        *matmuls.transformer(s.dynamics_depth, s.batch, s.frames, s.side**2, s.dim, s.heads),
        matmuls.linear(1, int(mask.sum()), s.dim, s.codes),
    ]
    ours, other = DynamicsModel(config(s)), plain.Dynamics(s)
    loss = dynamics_loss(tokens, actions, mask)
    return ours, loss, other, lambda model: model(tokens, actions, mask), products


def make_case(model: str, sizes: plain.Sizes) -> Case:
    """Ours and its loss, the plain one and its loss, and the bare products."""
    torch.manual_seed(0)
    makers = {
        "tokenizer": tokenizer_case,
        "latent_action": latent_action_case,
        "dynamics": dynamics_case,
    }
    return makers[model](sizes)


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


def peak_gib(model: str, which: str, dtype: str, sizes: plain.Sizes) -> float:
    """Peak memory of two steps in a process of their own."""
    command = [sys.executable, __file__, "--peak-of", model, which, dtype, json.dumps(asdict(sizes))]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def print_peak(model: str, which: str, dtype: str, sizes: str) -> None:
    ours, our_loss, other, other_loss, _ = make_case(model, plain.Sizes(**json.loads(sizes)))
    torch_dtype = getattr(torch, dtype)
    # What torch's libraries take when they are first used isn't the step's.
    stepper(torch.nn.Linear(64, 64), lambda model: model(torch.ones(64, 64)).sum(), torch_dtype)()
    measure.clear_high_water()
    baseline = measure.high_water_gib()
    step = stepper(*((ours, our_loss) if which == "ours" else (other, other_loss)), torch_dtype)
    step(), step()
    print(measure.high_water_gib() - baseline)


def rows(
    sizes: plain.Sizes, models: Sequence[str], dtypes: Sequence[str], rounds: int
) -> Iterator[measure.Row]:
    for name in models:
        ours, our_loss, other, other_loss, products = make_case(name, sizes)
        check_equal(ours, our_loss, other, other_loss)
        for dtype in (getattr(torch, dtype_name) for dtype_name in dtypes):
            beside = measure.yardstick(dtype)
            steps = {"ours": stepper(ours, our_loss, dtype), "plain": stepper(other, other_loss, beside)}
            keep_freed_memory(False)
            as_is = in_turns({"plain": steps["plain"]}, rounds)["plain"]
            keep_freed_memory()
            bare = matmuls.Sum(products, beside)
            time = in_turns({**steps, **bare.candidates}, rounds)
            limit = bare.seconds(time)
            del bare  # its memory
            keep_freed_memory(False)
            peak = {
                which: peak_gib(name, which, measure.name_of(its_dtype), sizes)
                for which, its_dtype in (("ours", dtype), ("plain", beside))
            }
            yield measure.row(
                f"steps/{name}",
                measure.name_of(dtype),
                time["ours"],
                time["plain"],
                limit,
                **{
                    "beside": measure.name_of(beside),
                    "plain_as_is_s": as_is,
                    "ours/plain as is": time["ours"] / as_is,
                    "ours_gib": peak["ours"],
                    "plain_gib": peak["plain"],
                    "memory ours/plain": peak["ours"] / peak["plain"],
                },
            )


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=5)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--peak-of", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print_peak(*options.peak_of)
        return
    measure.use_threads(options.threads)
    report(list(rows(plain.Sizes(), options.models, options.dtype, options.rounds)), options.json)


if __name__ == "__main__":
    main()
