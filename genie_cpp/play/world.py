"""The model that is played and the recording its prompts and episodes are from."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from genie_cpp.codec import Codec
from genie_cpp.config_values import values
from genie_cpp.errors import GenieError
from genie_cpp.inference import Session
from genie_cpp.models import Genie
from genie_cpp.play.protocol import LARGEST_ACTION, Settings
from genie_cpp.prompts import PromptFile
from genie_cpp.viz import to_frames, to_model

CONTEXT = 4
NUM_PROMPTS = 16


@dataclass(frozen=True)
class EpisodePart:
    """Frames of an episode at the model's size and rate, and the actions that follow each of them."""

    frames: np.ndarray
    """uint8 (n,H,W,3)."""
    latent: list[int]
    """The latent action model's action from each frame to the next; one fewer at the episode's end."""
    recorded: list[int] | None
    """The recorded ones; None where the file has none."""


class World:
    """What pages share. Its methods block and may be called in several threads at once.

    `data` is the recording; None takes the one of the model's configuration. Raises GenieError as
    PromptFile does, and for a model with more actions than a message can name.
    """

    def __init__(self, genie: Genie, data: str | os.PathLike[str] | None = None, name: str = "") -> None:
        self.genie, self.name = genie, name
        self.prompts = PromptFile(data, genie.config)
        self._codec = Codec(genie)
        inference = values(genie.config)["inference"]
        self.defaults = Settings(inference["steps"], inference["temperature"])
        self.history: int = inference["history"]
        self.num_actions: int = genie.latent_action.num_actions
        if self.num_actions > LARGEST_ACTION:
            raise GenieError(
                f"the page can play at most {LARGEST_ACTION} actions, this model has {self.num_actions}"
            )

    def describe(self) -> dict[str, Any]:
        """What a page has to know of it."""
        file = self.prompts.file
        return {
            "name": self.name,
            "recording": Path(self.prompts.path).name,
            "env": file.env,
            "width": self.prompts.width,
            "height": self.prompts.height,
            "fps": self.prompts.fps,
            "num_actions": self.num_actions,
            "history": self.history,
            "num_frames": file.num_frames,
            "recorded_actions": file.num_actions if file.has_actions else 0,
            "episodes": [self._length(index) for index in range(len(self.prompts.episodes))],
            "first_frames": [begin for begin, _ in self.prompts.episodes],
            "stride": self.prompts.stride,
            "prompts": self.suggested_prompts(),
            "steps": self.defaults.steps,
            "temperature": self.defaults.temperature,
        }

    def suggested_prompts(self) -> list[int]:
        """Frames spread over the recording, each with some context in its episode."""
        episodes = self.prompts.episodes
        spread = np.linspace(0, self.prompts.file.num_frames, NUM_PROMPTS, endpoint=False)
        found = []
        for frame in spread.astype(int).tolist():
            begin, end = episodes[self.prompts.episode_of(frame)]
            found.append(max(frame, min(begin + (CONTEXT - 1) * self.prompts.stride, end - 1)))
        return sorted(set(found))

    def start(self, prompt: int, seed: int, settings: Settings) -> Session:
        """A session that goes on from a recorded frame and up to 3 before it."""
        frames = self.prompts.read(prompt, self.prompts.available_context(prompt, CONTEXT))
        return self.genie.play(frames, seed, steps=settings.steps, temperature=settings.temperature)

    def picture(self, frame: int) -> bytes:
        """A recorded frame as a PNG file. Raises GenieError for a frame that there is not."""
        file = io.BytesIO()
        Image.fromarray(self.prompts.read(frame, 1)[0]).save(file, "PNG")
        return file.getvalue()

    def _length(self, episode: int) -> int:
        begin, end = self.prompts.episodes[episode]
        return -(-(end - begin) // self.prompts.stride)

    @torch.no_grad()
    def episode(self, index: int, begin: int, count: int) -> EpisodePart:
        """Up to `count` frames of an episode from its frame `begin` on (none beyond its end).

        The latent action model sees up to a clip's length of frames before `begin`.
        """
        stride, file = self.prompts.stride, self.prompts.file
        first, length = self.prompts.episodes[index][0], self._length(index)
        end = min(length, begin + count)
        if begin >= end:
            return EpisodePart(np.zeros((0, self.prompts.height, self.prompts.width, 3), np.uint8), [], None)
        earlier = min(begin, self.prompts.longest_context)
        later = min(end + 1, length)
        frames = file.read_frames(first + (begin - earlier) * stride, later - begin + earlier, stride)
        video = self.prompts.resized(to_model(frames))
        latent = self._codec.infer(video[None])[0, earlier:].tolist() if video.shape[0] > 1 else []
        recorded = None
        if file.actions is not None:
            places = [first + (frame + 1) * stride - 1 for frame in range(begin, later - 1)]
            recorded = file.actions[places].tolist()
        return EpisodePart(to_frames(video[earlier : earlier + end - begin]), latent, recorded)
