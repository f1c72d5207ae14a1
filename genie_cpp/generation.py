"""Playing a trained world from a recorded frame: what `genie-cpp generate` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genie_cpp import _C
from genie_cpp.codec import Codec
from genie_cpp.config_values import clip_length, values
from genie_cpp.errors import GenieError
from genie_cpp.viz import to_frames, to_model


def parse_prompt(prompt: str) -> tuple[str, int]:
    """Splits "FILE.h5:FRAME"."""
    path, _, frame = prompt.rpartition(":")
    if not path or not frame.isdecimal():
        raise GenieError(f"a prompt is FILE.h5:FRAME with a frame number counted from 0, got {prompt!r}")
    return path, int(frame)


def parse_actions(actions: str, num_actions: int) -> list[int]:
    """Splits "0,0,3,3" into latent actions, each 0..num_actions-1."""
    words = [word.strip() for word in actions.split(",")]
    for word in words:
        if not word.isdecimal() or int(word) >= num_actions:
            raise GenieError(
                f"actions are numbers 0..{num_actions - 1} separated by commas, such as 0,0,3; got {word!r}"
            )
    return [int(word) for word in words]


def frame_stride(file: _C.VideoFile, config: _C.Config) -> int:
    """Recorded frames from one frame of the model's clips to the next, by data.stride or data.fps."""
    settings = values(config)["data"]
    if not settings["fps"]:
        return settings["stride"]
    if file.fps < settings["fps"]:
        raise GenieError(
            f"the prompt's file has {file.fps:g} frames a second (0: not stated), "
            f"the model's clips {settings['fps']:g}"
        )
    return round(file.fps / settings["fps"])


def longest_context(config: _C.Config) -> int:
    """Frames of context that leave room for a new one in the model's clips."""
    return clip_length(config, "dynamics") - 1


def check_context(context: int, longest: int) -> None:
    if not 1 <= context <= longest:
        raise GenieError(
            f"context must be 1..{longest} frames, one fewer than the model's clips; got {context}"
        )


def check_frame(file: _C.VideoFile, frame: int) -> None:
    if not 0 <= frame < file.num_frames:
        raise GenieError(
            f"{file.path}: has frames 0..{file.num_frames - 1}, the prompt asks for frame {frame}"
        )


def read_prompt(path: str | Path | _C.VideoFile, frame: int, context: int, config: _C.Config) -> torch.Tensor:
    """`context` frames that end with number `frame`, as the model takes them: (1,context,3,H,W)."""
    file = path if isinstance(path, _C.VideoFile) else _C.VideoFile(str(path))
    path = file.path
    check_frame(file, frame)
    check_context(context, longest_context(config))
    stride = frame_stride(file, config)
    begin = frame - (context - 1) * stride
    episode_begin = max([0, *(end for end in file.episode_ends if end <= frame)])
    if begin < episode_begin:
        raise GenieError(
            f"{path}: {context} frames of context that end at frame {frame} would begin at {begin}, before "
            f"their episode does at {episode_begin}: ask for a smaller context or a later frame"
        )
    return fit_frames(to_model(file.read_frames(begin, context, stride))[None], config)


def fit_frames(video: torch.Tensor, config: _C.Config) -> torch.Tensor:
    """Video (B,T,3,H,W) in [0,1], resized to the model's frames where it is of another size."""
    settings = values(config)["data"]
    size = (settings["height"], settings["width"])
    if tuple(video.shape[-2:]) == size:
        return video
    # As the clips of training are resized: to whole steps of 1/255.
    resized = torch.nn.functional.interpolate(video.flatten(0, 1), size, mode="bilinear", antialias=True)
    return resized.mul(255).round().clamp(0, 255).div(255).unflatten(0, video.shape[:2])


@torch.no_grad()
def play(
    genie: Any, prompt: torch.Tensor, actions: Sequence[int] | torch.Tensor, seed: int = 0, **sampling: Any
) -> np.ndarray:
    """The prompt and one frame an action, as the model sees them: uint8 (B,T0+K,H,W,3).

    `prompt` is video (B,T0,3,H,W) in [0,1]; `actions` are the new ones, (K) or (B,K). Between the prompt's
    frames stand the actions that the latent action model infers. `sampling` holds steps, temperature,
    schedule, unmasking, top_k and top_p where they differ from the configuration's.
    """
    codec = Codec(genie)
    tokens = codec.encode(prompt)
    new = torch.as_tensor(actions, dtype=torch.int64).expand(len(prompt), -1)
    if prompt.shape[1] > 1:
        new = torch.cat([codec.infer(prompt), new], dim=1)
    generated = genie.generate(codec.put(tokens), codec.put(new), seed=seed, **sampling).cpu()
    return to_frames(codec.decode(torch.cat([tokens, generated], dim=1)))
