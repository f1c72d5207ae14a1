"""Playing a trained world: a session takes an action and gives the next frame.

    session = genie_cpp.load("runs/demo").play("runs/demo/boxing.h5:123", seed=0)
    frame = session.step(3)      # uint8 (H,W,3)
    session.rewind(1)            # as if it had not happened

Past frames' attention keys and values are kept, so a MaskGIT step computes the current frame alone and
gives what the whole window would. Python's lock is free while a session steps, and sessions of one model
may step in several threads at once.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genie_cpp import _C
from genie_cpp.codec import Codec
from genie_cpp.config_values import changed
from genie_cpp.errors import GenieError
from genie_cpp.generation import fit_frames, parse_prompt, read_prompt

if TYPE_CHECKING:
    from genie_cpp.models import Genie

__all__ = ["Prompt", "Session", "play"]

Prompt = str | np.ndarray | torch.Tensor


class Session:
    """A world under way; Genie.play begins one.

    Played with a batch of prompts, actions and frames are a batch too. Not made by hand.
    """

    def __init__(self, genie: Genie, handle: _C.WorldSession, batched: bool) -> None:
        self._genie = genie
        self._session = handle
        self._batched = batched

    @property
    def frame(self) -> np.ndarray:
        """The current frame, as the model sees it: uint8 (H,W,3), for a batch (B,H,W,3)."""
        return self._picture(self._session.frame)

    @property
    def frames(self) -> np.ndarray:
        """The frames still held, the current one last: uint8 (T,H,W,3), for a batch (B,T,H,W,3).

        At most inference.history + 1 of them, however long the session.
        """
        return self._picture(self._session.frames)

    @property
    def tokens(self) -> torch.Tensor:
        """The current frame's tokens: int64 (N), for a batch (B,N)."""
        tokens = self._session.tokens.clone()
        return tokens if self._batched else tokens[0]

    @property
    def actions(self) -> list[int] | list[list[int]]:
        """The actions taken since the prompt, oldest first; for a batch a list a sample."""
        actions = self._session.actions.tolist()
        return actions if self._batched else actions[0]

    @property
    def num_actions(self) -> int:
        """Actions are 0..num_actions-1."""
        return self._session.num_actions

    @property
    def batch_size(self) -> int:
        return self._session.batch_size

    @property
    def num_steps_taken(self) -> int:
        """Steps since the prompt that were not taken back."""
        return self._session.num_steps_taken

    @property
    def seed(self) -> int:
        return self._session.seed

    @property
    def options(self) -> dict[str, Any]:
        """steps, temperature, schedule, unmasking, top_k, top_p, and history and dtype, which stay."""
        return self._session.options

    def step(self, action: int | Sequence[int] | np.ndarray | torch.Tensor) -> np.ndarray:
        """Takes an action (for a batch one a sample) and returns the next frame.

        Raises TypeError and ValueError for what is no action or another number of them, IndexError for one
        outside 0..num_actions-1. The session is then as it was.
        """
        return self._picture(self._session.step(self._as_actions(action)))

    def rewind(self, n: int = 1) -> np.ndarray:
        """Takes the last `n` steps back and returns the frame that was there before them.

        The same actions then give the same frames again. Raises GenieError where fewer steps were taken
        since the prompt, or more than inference.history are asked for.
        """
        return self._picture(self._session.rewind(operator.index(n)))

    def fork(self, seed: int | None = None) -> Session:
        """An independent session at the same point.

        With the same seed (None) the same actions give the same frames here and there; with another one
        they differ.
        """
        return Session(self._genie, self._session.fork(seed), self._batched)

    def configure(self, **options: Any) -> None:
        """Sets steps, temperature, schedule, unmasking, top_k or top_p from the next step on.

        Raises GenieError for a value out of its range, TypeError for another option; nothing changes then.
        """
        self._session.configure(self._genie.config, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the session to a file (safetensors), from which `load` goes on as this one would."""
        self._session.save(os.fspath(path), self._batched)

    @classmethod
    def load(cls, genie: Genie, path: str | os.PathLike[str]) -> Session:
        """The session of a file; `genie` must be the model it was played with.

        Raises GenieError for a file that is damaged or no session, and for another model.
        """
        genie.eval()
        genie._synchronize()
        handle, batched = _C.WorldSession.load(genie._handle, os.fspath(path))
        return cls(genie, handle, batched)

    def __repr__(self) -> str:
        return (
            f"Session(batch_size={self.batch_size}, num_steps_taken={self.num_steps_taken}, seed={self.seed})"
        )

    def _picture(self, frames: torch.Tensor) -> np.ndarray:
        pixels = frames.numpy() if self._batched else frames[0].numpy()
        return pixels.copy()  # the session keeps its own

    def _as_actions(self, action: Any) -> torch.Tensor:
        if self._batched:
            actions = torch.as_tensor(action)
            if actions.is_floating_point() or actions.dtype == torch.bool:
                raise TypeError(f"actions are integers, got {actions.dtype}")
            return actions.to(torch.int64)
        return torch.tensor([operator.index(action)])


def play(
    genie: Genie,
    prompt: Prompt,
    seed: int = 0,
    *,
    context: int = 1,
    history: int | None = None,
    dtype: str | None = None,
    **sampling: Any,
) -> Session:
    """See Genie.play."""
    genie.eval()
    video, batched = _as_video(prompt, context, genie.config)
    codec = Codec(genie)
    tokens = codec.put(codec.encode(video))
    if video.shape[1] > 1:
        actions = codec.put(codec.infer(video))
    else:
        actions = torch.zeros(len(video), 0, dtype=torch.int64, device=tokens.device)
    given = {"history": history, "dtype": dtype}
    entries = [f"inference.{key}={value}" for key, value in given.items() if value is not None]
    genie._synchronize()
    handle = _C.WorldSession(
        genie._handle, changed(genie.config, *entries), tokens, actions, seed, **sampling
    )
    return Session(genie, handle, batched)


def _as_video(prompt: Prompt, context: int, config: _C.Config) -> tuple[torch.Tensor, bool]:
    """A prompt as float video (B,T0,3,H,W) of the model's size, and whether it was a batch."""
    if isinstance(prompt, str):
        path, frame = parse_prompt(prompt)
        return read_prompt(path, frame, context, config), False
    if context != 1:
        raise GenieError(f"context = {context} is for prompts FILE.h5:FRAME; give so many frames instead")
    video = torch.as_tensor(prompt)
    shape = tuple(video.shape)
    if video.dtype == torch.uint8 and 3 <= video.ndim <= 5 and shape[-1] == 3 and video.numel() > 0:
        batched = video.ndim == 5
        while video.ndim < 5:
            video = video[None]
        return fit_frames(video.movedim(-1, -3).float().div(255), config), batched
    if video.is_floating_point() and video.ndim == 5 and shape[2] == 3 and video.numel() > 0:
        if not bool(((video >= 0) & (video <= 1)).all()):
            raise GenieError("a float prompt holds pixels in [0,1]; this one has others, or NaN")
        return fit_frames(video.float(), config), True
    raise GenieError(
        "a prompt is FILE.h5:FRAME, uint8 frames (H,W,3), (T,H,W,3) or (B,T,H,W,3), or float video "
        f"(B,T,3,H,W) in [0,1]; got {video.dtype} {shape}"
    )
