"""One page's play: what its messages do to its session."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import numpy as np

from genie_cpp.errors import GenieError
from genie_cpp.inference import Session
from genie_cpp.play import protocol
from genie_cpp.play.fair_queue import FairQueue
from genie_cpp.play.limits import Limits
from genie_cpp.play.protocol import (
    Configure,
    Episode,
    Message,
    Previews,
    Record,
    Settings,
    Start,
    Step,
    Undo,
    pack,
)
from genie_cpp.play.recording import Recording, encode
from genie_cpp.play.world import World

_log = logging.getLogger("genie_cpp.play")

SendJson = Callable[[dict[str, Any]], Awaitable[None]]
SendBytes = Callable[[bytes], Awaitable[None]]


class Player:
    """Handles messages in their order. `handle` raises GenieError, in words, for what cannot be done."""

    def __init__(
        self,
        world: World,
        queue: FairQueue,
        limits: Limits,
        encoders: FairQueue,
        send_json: SendJson,
        send_bytes: SendBytes,
    ) -> None:
        self._world, self._queue, self._encoders = world, queue, encoders
        self._send_json, self._send_bytes = send_json, send_bytes
        self._session: Session | None = None
        self._recording = Recording(limits.recording_bytes)
        self._previews: asyncio.Task[None] | None = None
        self._starts = 0

    def expect(self, message: Message) -> None:
        """Tells of a message as soon as it arrives: a new start ends an earlier one's replay."""
        if isinstance(message, Start):
            self._starts += 1

    async def handle(self, message: Message) -> None:
        if isinstance(message, (Start, Step, Undo, Configure, Previews)):
            self._drop_previews()
        match message:
            case Start():
                await self._start(message)
            case Step(action):
                await self._step(self._started(), action)
            case Undo(count):
                await self._undo(self._started(), count)
            case Configure(settings):
                await self._configure(self._started(), settings)
            case Previews(length):
                self._previews = asyncio.create_task(self._show_previews(self._started(), length))
            case Episode(episode, begin):
                await self._episode(episode, begin)
            case Record(suffix, fps):
                await self._record(suffix, fps)

    async def close(self) -> None:
        """Ends what goes on in the background and lets the session go."""
        previews = self._previews
        self._drop_previews()
        if previews is not None:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await previews
        self._session = None
        self._recording.clear()

    def _started(self) -> Session:
        if self._session is None:
            raise GenieError("nothing is being played: choose a frame to start from")
        return self._session

    def _drop_previews(self) -> None:
        if self._previews is not None:
            self._previews.cancel()
            self._previews = None

    async def _start(self, message: Start) -> None:
        current = self._starts
        self._session = None
        self._recording.clear()
        total = sum(len(actions) for _, actions in message.tape)
        await self._send_json({"type": "starting", "prompt": message.prompt, "actions": total})
        settings = message.settings
        self._session = session = await self._queue.run(
            self, lambda: self._world.start(message.prompt, message.seed, settings)
        )
        await self._show(session.frame)
        try:
            for part, actions in message.tape:
                await self._configure(session, part)
                for action in actions:
                    if current != self._starts:
                        return
                    await self._step(session, action)
            await self._configure(session, settings)
        finally:
            taken = session.num_steps_taken
            await self._send_json({"type": "started", "prompt": message.prompt, "number": taken})

    async def _step(self, session: Session, action: int) -> None:
        def timed() -> tuple[np.ndarray, float]:
            begin = time.perf_counter()
            return session.step(action), time.perf_counter() - begin

        frame, seconds = await self._queue.run(self, timed)
        await self._show(frame, session.num_steps_taken, action, seconds)

    async def _show(
        self, frame: np.ndarray, number: int = 0, action: int | None = None, seconds: float = 0.0
    ) -> None:
        self._recording.add(frame)
        await self._send_bytes(pack(protocol.FRAME, frame, number, action, seconds))

    async def _undo(self, session: Session, count: int) -> None:
        frame = await self._queue.run(self, lambda: session.rewind(count))
        self._recording.undo(count + 1)
        number = session.num_steps_taken
        await self._send_json({"type": "undone", "number": number})
        await self._show(frame, number)

    async def _configure(self, session: Session, settings: Settings) -> None:
        await self._queue.run(
            self, lambda: session.configure(steps=settings.steps, temperature=settings.temperature)
        )

    async def _show_previews(self, session: Session, length: int) -> None:
        """What each action does from here; ends early when it is cancelled or the page is gone."""
        with contextlib.suppress(ConnectionError):
            try:
                await self._preview(session, length)
            except ConnectionError:
                raise
            except Exception:
                _log.exception("previews failed")
                words = "the server failed at the previews; what happened is in its log"
                await self._send_json({"type": "error", "about": "previews", "message": words})

    async def _preview(self, session: Session, length: int) -> None:
        number = session.num_steps_taken
        for action in range(self._world.num_actions):
            rollout = await self._queue.run(self, session.fork, background=True)
            for _ in range(length):
                frame = await self._queue.run(self, partial(rollout.step, action), background=True)
            await self._send_bytes(pack(protocol.PREVIEW, frame, number, action))

    async def _episode(self, episode: int, begin: int) -> None:
        part = await self._queue.run(
            self, lambda: self._world.episode(episode, begin, protocol.EPISODE_FRAMES)
        )
        await self._send_json(
            {
                "type": "episode",
                "episode": episode,
                "begin": begin,
                "count": len(part.frames),
                "latent": part.latent,
                "recorded": part.recorded,
            }
        )
        if len(part.frames):
            await self._send_bytes(pack(protocol.EPISODE, part.frames, begin))

    async def _record(self, suffix: str, fps: float) -> None:
        if not len(self._recording):
            raise GenieError("there is nothing to save yet: play first")
        frames = self._recording.frames()
        content = await self._encoders.run(self, lambda: encode(frames, suffix, fps))
        await self._send_json({"type": "file", "format": suffix, "frames": len(frames)})
        await self._send_bytes(protocol.pack_file(content, len(frames)))
