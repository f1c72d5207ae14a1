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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import plain
import plain_generation
import torch
from measure import Row, add_threads, environment, in_turns, row, use_threads
from plain_generation import masked_after

from genie_cpp import ops
from genie_cpp.config_values import as_config
from genie_cpp.inference import Session
from genie_cpp.models import Genie

SMALL = {"depth": 0, "dim": 32, "heads": 1}
STEPS = 25


def make_genie(s: plain.Sizes, steps: int, temporal_position: str) -> Genie:
    torch.manual_seed(0)
    config = {
        "data": {"num_frames": s.frames, "height": s.size, "width": s.size},
        "tokenizer": {
            "patch_size": s.patch,
            "initialization": "random",
            "quantizer": {"num_codes": s.codes, "code_dim": s.code_dim},
            "encoder": SMALL,
            "decoder": SMALL,
        },
        "latent_action": {"quantizer": {"num_codes": s.actions}, "encoder": SMALL, "decoder": SMALL},
        "dynamics": {
            "action_conditioning": "additive",
            "previous_frame_input": False,
            "token_embedding": "random",
            "transformer": {
                "depth": s.dynamics_depth,
                "dim": s.dim,
                "heads": s.heads,
                "head_dim": s.dim // s.heads,
                "temporal_position": temporal_position,
            },
        },
        "inference": {"steps": steps, "temperature": 1, "history": 1},
    }
    return Genie(as_config(config)).eval()


class Uncached:
    """MaskGIT that computes the whole window in each step."""

    def __init__(self, genie: Genie, steps: int) -> None:
        self.model, self.steps = genie.dynamics, steps
        self.tokens = torch.randint(
            genie.dynamics.num_tokens, (1, genie.dynamics.num_frames, genie.dynamics.tokens_per_frame)
        )
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


class BareProducts:
    """The matrix multiplications of an average refinement step and nothing else."""

    def __init__(self, s: plain.Sizes, steps: int) -> None:
        tokens, dim, heads, head_dim = s.side**2, s.dim, s.heads, s.dim // s.heads
        masked = [tokens, *(masked_after(step, steps, tokens) for step in range(1, steps))]
        rows = round(sum(masked) / len(masked))
        self.calls: list[Callable[[], Any]] = []
        for _ in range(s.dynamics_depth):
            for _ in range(2):
                self._add(tokens, dim, 3 * dim)
                self._add(tokens, dim, dim)
            self._add(tokens, dim, 4 * dim)
            self._add(tokens, 4 * dim, dim)
            self._add_batch(heads, tokens, head_dim, tokens)
            self._add_batch(heads, tokens, tokens, head_dim)
            self._add_batch(heads * tokens, 1, head_dim, s.frames)
            self._add_batch(heads * tokens, 1, s.frames, head_dim)
        self._add(rows, dim, s.codes)

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


def cached(genie: Genie, s: plain.Sizes) -> Session:
    video = torch.rand(1, genie.dynamics.num_frames - 1, 3, s.size, s.size)
    session = genie.play(video)
    for _ in range(2):  # the window is full now
        session.step([0])
    return session


def frame_with(session: Session, steps: int) -> Callable[[], object]:
    def run() -> None:
        session.configure(steps=steps)
        session.step([1])

    return run


def check_equal(genie: Genie, s: plain.Sizes) -> None:
    """Raises AssertionError unless the plain world sees what ours sees in the last frame of a full window."""
    tokens = torch.randint(s.codes, (s.frames, s.side**2))
    actions = torch.randint(s.actions, (s.frames - 1,))
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    mask[-1] = torch.rand(mask.shape[1]) < 0.5
    world = plain_generation.make_world(genie.dynamics, s, tokens[:-1], actions[:-1], STEPS)
    seen = world.features(tokens[-1], actions[-1], mask[-1])
    with torch.no_grad():
        expected = genie.dynamics.features(tokens[None], actions[None], mask[None])[0, -1]
    difference = (seen - expected).norm() / expected.norm()
    assert difference <= 1e-4, f"the features differ by {difference:.3g} of their norm"


def rows(s: plain.Sizes, steps: int, rounds: int) -> Iterator[Row]:
    """A frame with the cache: ours, plain PyTorch, and the products of its steps + 1 passes."""
    genie = make_genie(s, steps, "rotary")
    check_equal(genie, s)
    tokens, actions = torch.randint(s.codes, (s.frames, s.side**2)), torch.zeros(s.frames - 1).long()
    world = plain_generation.make_world(genie.dynamics, s, tokens, actions, steps)
    products = BareProducts(s, steps)

    def plain_frame() -> None:
        genie.tokenizer.decode(world.step(torch.tensor(1))[None])

    def all_products() -> None:
        for _ in range(steps + 1):
            products.run()

    time = in_turns(
        {
            "ours": frame_with(cached(genie, s), steps),
            "plain": plain_frame,
            "products": all_products,
        },
        rounds,
    )
    yield row("generation/frame", "float32", *time.values(), steps=steps)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    s = plain.Sizes(frames=args.frames, dim=args.dim, heads=args.heads, dynamics_depth=args.depth)
    rotary, learned = (make_genie(s, args.steps, position) for position in ("rotary", "learned"))
    session, sliding = cached(rotary, s), cached(learned, s)
    products = BareProducts(s, args.steps)
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
    add_threads(parser)
    parser.add_argument("--repeats", type=int, default=8, help="of what is quick")
    parser.add_argument("--uncached-repeats", type=int, default=2)
    for name, value in (("frames", 16), ("steps", STEPS), ("dim", 256), ("depth", 8), ("heads", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    if args.steps < 2:
        parser.error("--steps must be at least 2: a refinement step is timed as a difference")
    use_threads(args.threads)
    result = {
        **measure(args),
        **environment(),
    }
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
