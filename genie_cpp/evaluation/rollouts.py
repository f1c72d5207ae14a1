"""How far a generated future follows the true one, and how much of that the actions are responsible for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from genie_cpp.codec import Codec
from genie_cpp.evaluation.clips import in_batches
from genie_cpp.evaluation.metrics import changed_pixels, pooled_psnr, psnr

PROMPT_FRAMES = 4
ROLLOUT_FRAMES = 10


@dataclass(frozen=True)
class Rollouts:
    """Futures of the same clips, each float (B,K,3,H,W): true, generated, and what they are compared with."""

    prompt: torch.Tensor
    true: torch.Tensor
    generated: torch.Tensor
    reconstructed: torch.Tensor
    random: torch.Tensor  # (draws,B,K,3,H,W), generated with random actions


def roll_out(genie: Any, video: torch.Tensor, prompt: int, draws: int, batch: int, seed: int) -> Rollouts:
    """Generates the frames of `video` (B,T,3,H,W) that follow the first `prompt`, in token space.

    The prompt's actions and the first generation's are those the latent action model infers from the true
    video; the further `draws` generations take random ones with the same sampling noise.
    """
    codec = Codec(genie)
    tokens = in_batches(codec.encode, batch, video)
    actions = in_batches(codec.infer, batch, video)
    generator = torch.Generator().manual_seed(seed)

    def play(tokens: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        new = genie.generate(codec.put(tokens[:, :prompt]), codec.put(actions), seed=seed).cpu()
        return codec.decode(torch.cat([tokens[:, :prompt], new], dim=1))[:, prompt:]

    generated = in_batches(play, batch, tokens, actions)
    random = []
    for _ in range(draws):
        drawn = actions.clone()
        future = drawn[:, prompt - 1 :]
        future.copy_(torch.randint(genie.latent_action.num_actions, future.shape, generator=generator))
        random.append(in_batches(play, batch, tokens, drawn))
    reconstructed = in_batches(codec.decode, batch, tokens)[:, prompt:]
    return Rollouts(video[:, :prompt], video[:, prompt:], generated, reconstructed, torch.stack(random))


def rollout_figures(rollouts: Rollouts, mean_frame: torch.Tensor) -> dict[str, list[float | None]]:
    """The figures, each a list over t = 1, 2, ... frames after the prompt; mean_frame is (3,H,W)."""
    true = rollouts.true
    last = rollouts.prompt[:, -1:]
    moved = changed_pixels(true, last)
    candidates = {
        "rollout_psnr": rollouts.generated,
        "copy_rollout_psnr": last.expand_as(true),
        "mean_frame_psnr": mean_frame.expand_as(true),
        "reconstruction_rollout_psnr": rollouts.reconstructed,
    }
    figures: dict[str, list[float | None]] = {}
    for name, video in candidates.items():
        figures[name] = psnr(video, true).mean(0).tolist()
        figures[f"{name}_changed"] = [
            pooled_psnr(video[:, t], true[:, t], moved[:, t]) for t in range(true.shape[1])
        ]
    driven = psnr(rollouts.generated, true).mean(0)
    undriven = psnr(rollouts.random, true.expand_as(rollouts.random)).mean((0, 1))
    figures["delta_psnr"] = (driven - undriven).tolist()
    return figures
