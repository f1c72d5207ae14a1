"""How fast a trained world plays, and what fewer MaskGIT steps a frame cost.

    python benchmarks/playing.py --model runs/demo --data runs/demo/boxing.h5 --json out.json

Frames a second are those of Session.step, pictures included. PSNR is that of 4-frame rollouts with the latent
actions of the true video, over all pixels and over those that change, all four frames pooled as
`genie-cpp eval` does for each; the same clips and seeds for each number of steps.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from measure import arguments, report, use_threads

import genie_cpp
from genie_cpp.config_values import values
from genie_cpp.evaluation.clips import open_source
from genie_cpp.evaluation.rollouts import PROMPT_FRAMES, roll_out, rollout_figures

FRAMES = 4


def frames_a_second(genie: Any, video: torch.Tensor, steps: int, rounds: int) -> float:
    session = genie.play(video, seed=0, steps=steps)
    count = 2 * genie.dynamics.num_frames  # the window is full after the first of them
    rates = []
    for _ in range(1 + rounds):
        begin = time.perf_counter()
        for step in range(count):
            session.step([step % genie.latent_action.num_actions])
        rates.append(count / (time.perf_counter() - begin))
    return max(rates[1:])


def with_steps(genie: Any, steps: int) -> Any:
    """The world, generating with so many steps."""

    class Stepped:
        def __getattr__(self, name: str) -> Any:
            return getattr(genie, name)

        def generate(self, *values: Any, **options: Any) -> torch.Tensor:
            return genie.generate(*values, steps=steps, **options)

    return Stepped()


@torch.no_grad()
def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=3)
    parser.add_argument("--model", required=True, help="run directory of a trained world")
    parser.add_argument(
        "--data", required=True, help="HDF5 file; its held-out episodes where it was trained on"
    )
    parser.add_argument("--split", default="auto", help="as genie-cpp eval takes it")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=2, help="rollouts of each clip")
    parser.add_argument("--steps", type=int, nargs="+", help="beside the configured ones and 25")
    options = parser.parse_args()
    use_threads(options.threads)
    genie = genie_cpp.load(options.model)
    configured = values(genie.config)["inference"]["steps"]
    source = open_source(options.data, genie.config, options.split)
    video = source.clips(options.clips, PROMPT_FRAMES + FRAMES).video
    rows = []
    for steps in sorted({configured, 25, *(options.steps or [])}):
        psnr, changed = [], []
        for seed in range(options.seeds):
            rollouts = roll_out(with_steps(genie, steps), video, PROMPT_FRAMES, draws=1, batch=8, seed=seed)
            figures = rollout_figures(rollouts, video.mean((0, 1)))
            psnr.append(figures["rollout_psnr"])
            changed.append(figures["rollout_psnr_changed"])
        rows.append(
            {
                "steps": steps,
                "configured": steps == configured,
                "frames/s": frames_a_second(genie, video[:1, :PROMPT_FRAMES], steps, options.rounds),
                "psnr": statistics.mean(value for over_time in psnr for value in over_time),
                "psnr changed": statistics.mean(value for over_time in changed for value in over_time),
                "psnr changed, t = 4": statistics.mean(over_time[-1] for over_time in changed),
                "mean frame's": figures["mean_frame_psnr_changed"][-1],
            }
        )
    report(rows, options.json)


if __name__ == "__main__":
    main()
