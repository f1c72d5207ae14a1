"""The ASGI application: the page, its pictures, and the socket it plays over."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from genie_cpp.play import protocol
from genie_cpp.play.connection import Connection, close
from genie_cpp.play.fair_queue import FairQueue
from genie_cpp.play.guard import Guard
from genie_cpp.play.limits import Limits
from genie_cpp.play.world import World

STATIC = Path(__file__).parent / "static"
_FRAME_NUMBER = re.compile("[0-9]{1,18}")


class _Server:
    """The endpoints and what they share."""

    def __init__(self, world: World, limits: Limits) -> None:
        self.world, self.limits = world, limits
        self.queue = FairQueue()
        self.encoders = FairQueue()
        self.connections = 0

    async def page(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def picture(self, request: Request) -> Response:
        """A recorded frame, as PNG."""
        name = request.path_params["frame"]
        last = self.world.prompts.file.num_frames - 1
        if not _FRAME_NUMBER.fullmatch(name) or int(name) > last:
            return PlainTextResponse(f"the recording has frames 0..{last}\n", 404)
        content = await asyncio.to_thread(self.world.picture, int(name))
        return Response(content, media_type="image/png")

    async def socket(self, socket: WebSocket) -> None:
        if self.connections >= self.limits.sessions:
            await socket.accept()
            await close(socket, protocol.CLOSE_FULL, f"{self.limits.sessions} pages play already")
            return
        self.connections += 1
        try:
            await Connection(socket, self.world, self.queue, self.limits, self.encoders).run()
        finally:
            self.connections -= 1


def create_app(
    world: World, limits: Limits | None = None, host: str = "127.0.0.1", allowed_hosts: Iterable[str] = ()
) -> Starlette:
    """The application for one world; Guard says what `host` and `allowed_hosts` mean."""
    server = _Server(world, limits or Limits())

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        server.queue.close()
        server.encoders.close()

    return Starlette(
        routes=[
            Route("/", server.page),
            Route("/frames/{frame}.png", server.picture),
            WebSocketRoute("/socket", server.socket),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, host=host, allowed=list(allowed_hosts))],
        lifespan=lifespan,
    )
