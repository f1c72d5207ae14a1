"""A stand-in for a trained model whose answers can be worked out by hand, and small files to use it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from genie_cpp import _C
from genie_cpp.evaluation.linear_tokenizer import from_patches, to_patches

SIZE = 16
PATCH = 4
CODES = 8

CONFIG = f"""
data: {{num_frames: 8, height: {SIZE}, width: {SIZE}, validation_fraction: 0.25}}
tokenizer: {{patch_size: {PATCH}, quantizer: {{num_codes: {CODES}, code_dim: 4}}}}
latent_action: {{quantizer: {{num_codes: 4}}}}
inference: {{steps: 2, temperature: 0}}
"""


class Tokenizer:
    """A patch's token is its mean brightness in `CODES` steps."""

    num_codes = CODES

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        mean = to_patches(video, PATCH).mean(-1)
        return (mean * CODES).long().clamp(max=CODES - 1)

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        grey = (tokens.float() + 0.5) / CODES
        return from_patches(grey[..., None].expand(*grey.shape, 3 * PATCH**2), PATCH, SIZE, SIZE)


class LatentAction:
    """The action is how far the brightest column of patches moved to the right, modulo 4."""

    num_actions = 4

    def infer(self, video: torch.Tensor) -> torch.Tensor:
        column = Tokenizer().encode(video).unflatten(-1, (SIZE // PATCH, -1)).sum(-2).argmax(-1)
        return (column[:, 1:] - column[:, :-1]) % 4


class ShiftingWorld:
    """Predicts that the picture moves to the right by as many patches as the action says: the truth."""

    def __init__(self) -> None:
        self.config = _C.Config.parse(CONFIG)
        self.tokenizer, self.latent_action = Tokenizer(), LatentAction()

    def next(self, tokens: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        rows = tokens.unflatten(-1, (SIZE // PATCH, -1))
        moved = [row.roll(int(shift), -1) for row, shift in zip(rows, action, strict=True)]
        return torch.stack(moved).flatten(1)

    def dynamics(self, tokens: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert mask[:, -1].all() and not mask[:, :-1].any()
        logits = torch.zeros(*tokens.shape, CODES)
        return logits.scatter_(
            -1, self.next(tokens[:, -2], actions[:, -1])[:, None, :, None].expand(*tokens.shape, 1), 100.0
        )

    def generate(
        self, prompt_tokens: torch.Tensor, actions: torch.Tensor, **sampling: object
    ) -> torch.Tensor:
        new = actions.shape[1] - prompt_tokens.shape[1] + 1
        frames = [prompt_tokens[:, -1]]
        for step in range(new):
            frames.append(self.next(frames[-1], actions[:, actions.shape[1] - new + step]))
        return torch.stack(frames[1:], dim=1)


def shifting_frames(count: int, actions: np.ndarray, start: int = 0) -> np.ndarray:
    """A bright column of patches on dark ground that moves by the actions, uint8 (count,SIZE,SIZE,3)."""
    frames = np.full((count, SIZE, SIZE, 3), 20, np.uint8)
    column = start
    for frame, action in zip(frames, actions, strict=True):
        frame[:, column * PATCH : (column + 1) * PATCH] = 230
        column = (column + int(action)) % (SIZE // PATCH)
    return frames


def write_shifting_world(
    path: Path, episodes: int = 8, length: int = 30, actions: bool = True, seed: int = 0
) -> None:
    rng = np.random.default_rng(seed)
    options = {"fps": 15.0, "env": "shifting", "num_actions": 4 if actions else 0}
    with _C.VideoWriter(str(path), SIZE, SIZE, **options) as writer:
        for _ in range(episodes):
            moves = rng.integers(4, size=length)
            frames = torch.from_numpy(shifting_frames(length, moves))
            writer.append(frames, torch.from_numpy(moves) if actions else None)
            writer.end_episode()
