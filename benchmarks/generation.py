"""Times a generated frame with the temporal cache and without, on the same weights, in one run.

    python benchmarks/generation.py --json out.json

The model is that of docs/performance.md: T = 16 frames, 256 tokens a frame, 1024 codes, dim 256, 8 layers, 8
heads, 25 MaskGIT steps, batch 1, float32, with 15 frames in context. A cached frame is Session.step: it
puts the former frame into the cache (the commit pass), refines the new one, and decodes the picture; an
uncached one computes the whole window in each refinement step. With rotary time positions nothing is
computed again when the window slides; with learned ones the window is encoded anew for each frame
("sliding"). The bare matrix multiplications of a refinement step are its torch.mm and torch.bmm calls into
memory that is there already. Runs alternate; each figure is the least of several.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import environment, in_turns

from genie_cpp import ops
from genie_cpp.config_values import as_config
from genie_cpp.inference import Session
from genie_cpp.models import Genie

SMALL = {"depth": 0, "dim": 32, "heads": 1}


def make_genie(args: argparse.Namespace, temporal_position: str) -> Genie:
    torch.manual_seed(0)
    config = {
        "data": {"num_frames": args.frames, "height": 64, "width": 64},
        "tokenizer": {
            "patch_size": 4,
            "initialization": "random",
            "quantizer": {"num_codes": 1024, "code_dim": 32},
            "encoder": SMALL,
            "decoder": SMALL,
        },
        "latent_action": {"encoder": SMALL, "decoder": SMALL},
        "dynamics": {
            "token_embedding": "random",
            "transformer": {
                "depth": args.depth,
                "dim": args.dim,
                "heads": args.heads,
                "head_dim": args.dim // args.heads,
                "temporal_position": temporal_position,
            },
        },
        "inference": {"steps": args.steps, "temperature": 1, "history": 1},
    }
    return Genie(as_config(config)).eval()


class Uncached:
    """MaskGIT that computes the whole window in each step."""

    def __init__(self, genie: Genie, steps: int) -> None:
        self.model, self.steps = genie.dynamics, steps
        self.tokens = torch.randint(1024, (1, genie.dynamics.num_frames, genie.dynamics.tokens_per_frame))
        self.actions = torch.randint(8, (1, genie.dynamics.num_frames - 1))

    @torch.no_grad()
    def frame(self) -> None:
        tokens = self.tokens.clone()
        mask = torch.zeros_like(tokens, dtype=torch.bool)
        mask[:, -1] = True
        count = tokens.shape[2]
        for step in range(1, self.steps + 1):
            features = self.model.features(tokens, self.actions, mask)[:, -1]
            keep = masked_after(step, self.steps, count)
            tokens[:, -1], mask[:, -1] = ops.maskgit_step(
                self.model.logits(features),
                tokens[:, -1],
                mask[:, -1],
                torch.rand(1, count),
                torch.rand(1, count),
                keep,
            )


def masked_after(step: int, steps: int, count: int) -> int:
    """The cosine schedule of MaskGIT."""
    return (
        int(count * torch.tensor(step / steps * torch.pi / 2, dtype=torch.float64).cos())
        if step < steps
        else 0
    )


class BareProducts:
    """The matrix multiplications of an average refinement step and nothing else."""

    def __init__(self, args: argparse.Namespace, tokens: int) -> None:
        dim, hidden, heads, head_dim = args.dim, 4 * args.dim, args.heads, args.dim // args.heads
        masked = [tokens, *(masked_after(step, args.steps, tokens) for step in range(1, args.steps))]
        rows = round(sum(masked) / len(masked))
        self.calls: list[Callable[[], Any]] = []
        for _ in range(args.depth):
            for _ in range(2):
                self._add(tokens, dim, 3 * dim)
                self._add(tokens, dim, dim)
            self._add(tokens, dim, hidden)
            self._add(tokens, hidden, dim)
            self._add_batch(heads, tokens, head_dim, tokens)
            self._add_batch(heads, tokens, tokens, head_dim)
            self._add_batch(heads * tokens, 1, head_dim, args.frames)
            self._add_batch(heads * tokens, 1, args.frames, head_dim)
        self._add(rows, dim, 1024)

    def _add(self, rows: int, inner: int, columns: int) -> None:
        a, b, out = torch.randn(rows, inner), torch.randn(columns, inner).t(), torch.empty(rows, columns)
        self.calls.append(lambda: torch.mm(a, b, out=out))

    def _add_batch(self, count: int, rows: int, inner: int, columns: int) -> None:
        a, b = torch.randn(count, rows, inner), torch.randn(count, inner, columns)
        out = torch.empty(count, rows, columns)
        self.calls.append(lambda: torch.bmm(a, b, out=out))

    @torch.no_grad()
    def run(self) -> None:
        for call in self.calls:
            call()


def cached(genie: Genie) -> Session:
    video = torch.rand(1, genie.dynamics.num_frames - 1, 3, 64, 64)
    session = genie.play(video)
    for _ in range(2):  # the window is full now
        session.step([0])
    return session


def frame_with(session: Session, steps: int) -> Callable[[], object]:
    def run() -> None:
        session.configure(steps=steps)
        session.step([1])

    return run


def measure(args: argparse.Namespace) -> dict[str, Any]:
    rotary, learned = make_genie(args, "rotary"), make_genie(args, "learned")
    session, sliding = cached(rotary), cached(learned)
    products = BareProducts(args, rotary.dynamics.tokens_per_frame)
    for _ in range(3):
        products.run()
    few = 1
    quick = in_turns(
        {
            "frame": frame_with(session, args.steps),
            "frame_of_one_step": frame_with(session, few),
            "sliding": frame_with(sliding, args.steps),
            "products": products.run,
        },
        args.repeats,
        warmup=0,
    )
    slow = in_turns(
        {
            "uncached": Uncached(rotary, args.steps).frame,
            "frame": frame_with(session, args.steps),
            "uncached_learned": Uncached(learned, args.steps).frame,
            "sliding": frame_with(sliding, args.steps),
            "products": products.run,
        },
        args.uncached_repeats,
        warmup=0,
    )
    frame, slide = min(quick["frame"], slow["frame"]), min(quick["sliding"], slow["sliding"])
    refinement = (quick["frame"] - quick["frame_of_one_step"]) / (args.steps - few)
    bare = min(quick["products"], slow["products"])
    return {
        "speedup": slow["uncached"] / frame,
        "speedup_sliding": slow["uncached_learned"] / slide,
        "bound": args.steps * args.frames / (args.steps + 1),
        "bound_sliding": args.steps * args.frames / (args.steps + args.frames - 1),
        "seconds_per_frame": frame,
        "seconds_per_frame_sliding": slide,
        "seconds_per_frame_uncached": slow["uncached"],
        "seconds_per_frame_uncached_learned": slow["uncached_learned"],
        "ms_per_refinement_step": 1e3 * refinement,
        "ms_of_its_matrix_multiplications": 1e3 * bare,
        "refinement_step_over_its_matrix_multiplications": refinement / bare,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    parser.add_argument("--repeats", type=int, default=8, help="of what is quick")
    parser.add_argument("--uncached-repeats", type=int, default=2)
    for name, value in (("frames", 16), ("steps", 25), ("dim", 256), ("depth", 8), ("heads", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    if args.steps < 2:
        parser.error("--steps must be at least 2: a refinement step is timed as a difference")
    if args.threads:
        torch.set_num_threads(args.threads)
    result = {
        **measure(args),
        **environment(),
    }
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
