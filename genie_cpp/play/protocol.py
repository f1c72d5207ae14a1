"""Messages between page and server.

The page sends JSON text, one object with a "type" a message; `parse` checks every field. The server
answers with JSON text, and with binary messages for pixels: a header of 16 bytes, little-endian, then RGB
rows from the top.

    0  uint8   kind: 0 frame, 1 preview, 2 frames of an episode, 3 a recorded file
    1  uint8   action that led to the frame, 255 where none did
    2  uint16  width       4  uint16  height, in pixels
    6  uint16  count: pictures that follow; frames of a preview's rollout
    8  uint32  number: actions taken up to this frame, or the episode's frame
    12 uint32  microseconds the model took
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from genie_cpp.errors import GenieError
from genie_cpp.play.limits import Limits

VERSION = 1
HEADER = struct.Struct("<BBHHHII")
FRAME, PREVIEW, EPISODE, FILE = range(4)
NO_ACTION = 255
LARGEST_ACTION = NO_ACTION - 1
LARGEST_SEED = 2**32 - 1
EPISODE_FRAMES = 32

# Close codes of the server's own, beside those of RFC 6455; the page knows them.
CLOSE_IDLE, CLOSE_FULL, CLOSE_RATE = 4000, 4001, 4002


@dataclass(frozen=True)
class Settings:
    """How frames are sampled from here on."""

    steps: int
    temperature: float


@dataclass(frozen=True)
class Start:
    """A new play from a recorded frame; `tape` holds an earlier one's actions and their settings."""

    prompt: int
    seed: int
    settings: Settings
    tape: tuple[tuple[Settings, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Step:
    action: int


@dataclass(frozen=True)
class Undo:
    count: int


@dataclass(frozen=True)
class Configure:
    settings: Settings


@dataclass(frozen=True)
class Previews:
    """Asks for a rollout of `length` frames by each action, from the current frame."""

    length: int


@dataclass(frozen=True)
class Episode:
    episode: int
    begin: int


@dataclass(frozen=True)
class Record:
    format: str
    fps: float


Message: TypeAlias = Start | Step | Undo | Configure | Previews | Episode | Record


class _Fields:
    """Typed access to a message's fields, with errors that name them."""

    def __init__(self, fields: dict[str, Any], about: str) -> None:
        self._fields, self._about = fields, about

    def _get(self, name: str) -> Any:
        if name not in self._fields:
            raise GenieError(f"{self._about}: has no {name!r}")
        return self._fields[name]

    def integer(self, name: str, low: int, high: int) -> int:
        value = self._get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise GenieError(f"{self._about}: {name} must be a whole number {low}..{high}")
        return value

    def number(self, name: str, low: float, high: float) -> float:
        value = self._get(name)
        # NaN is in no range.
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise GenieError(f"{self._about}: {name} must be a number {low:g}..{high:g}")
        return float(value)

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self._get(name)
        if value not in choices:
            raise GenieError(f"{self._about}: {name} must be {' or '.join(choices)}")
        return value

    def list(self, name: str) -> list[Any]:
        value = self._get(name)
        if not isinstance(value, list):
            raise GenieError(f"{self._about}: {name} must be a list")
        return value


class Parser:
    """Messages for a model with `num_actions` actions and a file of `num_frames` frames."""

    def __init__(self, limits: Limits, num_actions: int, num_frames: int, num_episodes: int) -> None:
        self._limits = limits
        self._num_actions, self._num_frames, self._num_episodes = num_actions, num_frames, num_episodes
        self._kinds: dict[str, Callable[[_Fields], Message]] = {
            "start": self._start,
            "step": lambda fields: Step(fields.integer("action", 0, num_actions - 1)),
            "undo": lambda fields: Undo(fields.integer("count", 1, limits.resumed_actions)),
            "configure": lambda fields: Configure(self._settings(fields)),
            "previews": lambda fields: Previews(fields.integer("length", 1, 8)),
            "episode": lambda fields: Episode(
                fields.integer("episode", 0, num_episodes - 1), fields.integer("begin", 0, num_frames - 1)
            ),
            "record": lambda fields: Record(
                fields.choice("format", ("gif", "mp4")), fields.number("fps", 1, 60)
            ),
        }

    def parse(self, text: str | bytes | None) -> Message:
        """Raises GenieError, in words for the page, where the message is not one of the above."""
        if not isinstance(text, str):
            raise GenieError("messages to the server are text, this one is not")
        if len(text) > self._limits.message_bytes:
            raise GenieError(
                f"messages may have {self._limits.message_bytes} bytes, this one has {len(text)}"
            )
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            raise GenieError("a message is not JSON") from None
        kind = fields.get("type") if isinstance(fields, dict) else None
        if not isinstance(kind, str) or kind not in self._kinds:
            raise GenieError(f"a message's type must be one of {', '.join(self._kinds)}")
        return self._kinds[kind](_Fields(fields, kind))

    def _settings(self, fields: _Fields) -> Settings:
        return Settings(
            fields.integer("steps", 1, self._limits.steps),
            fields.number("temperature", 0, self._limits.temperature),
        )

    def _start(self, fields: _Fields) -> Start:
        tape = []
        taken = 0
        for part in fields.list("tape"):
            if not isinstance(part, dict):
                raise GenieError("start: each part of the tape must be an object")
            inner = _Fields(part, "start: tape")
            actions = inner.list("actions")
            if not all(type(action) is int and 0 <= action < self._num_actions for action in actions):
                raise GenieError(f"start: the tape's actions must be 0..{self._num_actions - 1}")
            taken += len(actions)
            tape.append((self._settings(inner), tuple(actions)))
        if taken > self._limits.resumed_actions:
            raise GenieError(
                f"start: a play of {taken} actions is too long to be taken up again, "
                f"{self._limits.resumed_actions} are the most"
            )
        return Start(
            fields.integer("prompt", 0, self._num_frames - 1),
            fields.integer("seed", 0, LARGEST_SEED),
            self._settings(fields),
            tuple(tape),
        )


def pack(
    kind: int, frames: np.ndarray, number: int = 0, action: int | None = None, seconds: float = 0.0
) -> bytes:
    """A binary message of frames uint8 (H,W,3) or (count,H,W,3)."""
    pictures = frames[None] if frames.ndim == 3 else frames
    count, height, width = pictures.shape[:3]
    taken = min(round(seconds * 1e6), 2**32 - 1)
    header = HEADER.pack(kind, NO_ACTION if action is None else action, width, height, count, number, taken)
    return header + np.ascontiguousarray(pictures).tobytes()


def pack_file(content: bytes, number: int) -> bytes:
    """A binary message with a file's bytes; `number` is the number of frames in it."""
    return HEADER.pack(FILE, NO_ACTION, 0, 0, 0, number, 0) + content
