"""Runs the application with uvicorn and opens the page."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Callable, Iterable

import uvicorn

from genie_cpp.errors import GenieError
from genie_cpp.play.app import create_app
from genie_cpp.play.limits import Limits
from genie_cpp.play.world import World

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class _Server(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._listening()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise GenieError(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another by --host and --port; "
            f"--port 0 takes any free one"
        ) from None
    return bound


def serve(
    world: World,
    host: str = "127.0.0.1",
    port: int = 8421,
    *,
    limits: Limits | None = None,
    allowed_hosts: Iterable[str] = (),
    open_browser: bool = True,
    on_listening: Callable[[str], None] = print,
) -> None:
    """Serves the page until Ctrl-C. `on_listening` gets its address; port 0 takes a free one.

    Raises GenieError where the address cannot be had.
    """
    limits = limits or Limits()
    bound = _bind(host, port)
    shown = _ANY_ADDRESS.get(host, host)
    address = f"http://{f'[{shown}]' if ':' in shown else shown}:{bound.getsockname()[1]}/"

    def listening() -> None:
        on_listening(address)
        if open_browser:
            # Some browsers are started in the foreground and would hold the server up.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    config = uvicorn.Config(
        create_app(world, limits, host, allowed_hosts),
        ws="websockets-sansio",
        ws_max_size=limits.message_bytes,
        ws_per_message_deflate=False,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        limit_concurrency=4 * limits.sessions + 64,
        h11_max_incomplete_event_size=32 * 1024,
    )
    _Server(config, listening).run([bound])
