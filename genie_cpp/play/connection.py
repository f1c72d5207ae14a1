"""One page's connection: takes its messages within the limits, and sends answers and errors in words."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from genie_cpp.errors import GenieError
from genie_cpp.play import protocol
from genie_cpp.play.fair_queue import FairQueue
from genie_cpp.play.limits import Limits
from genie_cpp.play.player import Player
from genie_cpp.play.protocol import Message, Parser
from genie_cpp.play.world import World

_log = logging.getLogger("genie_cpp.play")


class _End(ConnectionError):
    """The connection is over; where `code` is given, the server closes it and says why."""

    def __init__(self, code: int | None = None, reason: str = "") -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class _Bucket:
    """Lets `rate` messages a second through on average, and twice as many at once."""

    def __init__(self, rate: float) -> None:
        self._rate, self._left, self._then = rate, 2 * rate, time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(2 * self._rate, self._left + (now - self._then) * self._rate)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Connection:
    """Accepts the socket and serves it until either side ends it. No message of the page ends the server."""

    def __init__(
        self,
        socket: WebSocket,
        world: World,
        queue: FairQueue,
        limits: Limits,
        encoders: FairQueue,
    ) -> None:
        self._socket, self._limits = socket, limits
        described = world.describe()
        self._hello = {"type": "hello", "version": protocol.VERSION, "max_steps": limits.steps} | described
        self._hello |= {"max_temperature": limits.temperature, "max_actions": limits.resumed_actions}
        self._hello |= {"max_message": limits.message_bytes}
        self._parser = Parser(limits, world.num_actions, described["num_frames"], len(described["episodes"]))
        self._bucket = _Bucket(limits.messages_per_second)
        self._inbox: asyncio.Queue[Message] = asyncio.Queue(limits.waiting_messages)
        self._refusals = 0
        self._last_error = 0.0
        self._sending = asyncio.Lock()
        self._player = Player(world, queue, limits, encoders, self._send_json, self._send_bytes)

    async def run(self) -> None:
        await self._socket.accept()
        tasks = [asyncio.create_task(part()) for part in (self._read, self._answer)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            endings = await asyncio.gather(*tasks, return_exceptions=True)
            await self._player.close()
        for ending in endings:
            if isinstance(ending, _End):
                await close(self._socket, ending.code, ending.reason)
                return
        for ending in endings:
            if isinstance(ending, Exception):
                raise ending

    async def _read(self) -> None:
        while True:
            try:
                event = await asyncio.wait_for(self._socket.receive(), self._limits.idle_seconds)
            except asyncio.TimeoutError:
                raise _End(protocol.CLOSE_IDLE, "nothing was played for a while") from None
            if event["type"] == "websocket.disconnect":
                raise _End
            if not self._bucket.take():
                await self._refuse("too many messages at once, some are left out")
                continue
            try:
                message = self._parser.parse(event.get("text"))
                self._inbox.put_nowait(message)
                self._player.expect(message)
            except GenieError as error:
                await self._refuse(str(error))
            except asyncio.QueueFull:
                await self._refuse("too many messages wait for an answer, this one is left out")

    async def _refuse(self, words: str) -> None:
        self._refusals += 1
        if self._refusals > self._limits.refusals:
            raise _End(protocol.CLOSE_RATE, "too many messages that could not be taken")
        # A flood of messages does not cause a flood of answers.
        if self._refusals < 10 or time.monotonic() - self._last_error >= 0.5:
            self._last_error = time.monotonic()
            await self._send_json({"type": "error", "message": words})

    async def _answer(self) -> None:
        await self._send_json(self._hello)
        while True:
            message = await self._inbox.get()
            about = type(message).__name__.lower()
            try:
                await self._player.handle(message)
            except _End:
                raise
            except (GenieError, OSError) as error:
                words = " ".join(str(error).split())
            except Exception:
                _log.exception("a message of the page failed: %s", about)
                words = "the server failed at this; what happened is in its log"
            else:
                continue
            await self._send_json({"type": "error", "about": about, "message": words})

    async def _send_json(self, fields: dict[str, Any]) -> None:
        await self._send({"type": "websocket.send", "text": json.dumps(fields, allow_nan=False)})

    async def _send_bytes(self, content: bytes) -> None:
        await self._send({"type": "websocket.send", "bytes": content})

    async def _send(self, event: dict[str, Any]) -> None:
        async with self._sending:
            try:
                await asyncio.wait_for(self._socket.send(event), self._limits.send_seconds)
            except Exception:  # what a server raises for a socket that is gone differs between servers
                raise _End(1011, "the page does not take its frames") from None


async def close(socket: WebSocket, code: int | None, reason: str) -> None:
    """Closes a socket that may be closed already."""
    if code is None or socket.application_state is not WebSocketState.CONNECTED:
        return
    try:
        await asyncio.wait_for(socket.close(code, reason), 5)
    except (asyncio.TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
        return
