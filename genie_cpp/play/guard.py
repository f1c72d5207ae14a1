"""Who may talk to the server, and what its pages may load.

A page of another site can make a browser send requests to localhost: the Origin header tells. By DNS
rebinding such a site can even make its own name point here: then the Host header does.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?:\[(?P<bracketed>[0-9a-fA-F:.]+)\]|(?P<plain>[0-9a-zA-Z._-]+))(?::[0-9]{1,5})?")
_ANY_ADDRESS = frozenset({"0.0.0.0", "::", ""})

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' ws://{host} "
    "wss://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def host_name(host: str) -> str | None:
    """The name or address in a Host header, without port and brackets; None where it is malformed."""
    match = _HOST.fullmatch(host)
    return (match["bracketed"] or match["plain"]).lower() if match else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware: refuses foreign Host and Origin headers with 403, and adds the security headers.

    `host` is what the server is bound to. Bound to one's own computer, Host must be localhost or its
    address. Bound beyond, Host may also be any numeric address (which no other site's name can pretend to
    be), `host` itself, or a name in `allowed`. An Origin, where there is one, must be the page's own: the
    same host and port.
    """

    def __init__(self, app: ASGIApp, host: str = "127.0.0.1", allowed: Iterable[str] = ()) -> None:
        self._app = app
        names = {name.lower() for name in allowed} | LOOPBACK_NAMES
        self._addresses = host not in LOOPBACK_NAMES
        self._names = names if host in _ANY_ADDRESS else names | {host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self.refusal(headers.getlist("host"), headers.getlist("origin"))
        if refusal is None:
            await self._app(scope, receive, self._with_headers(scope, headers["host"], send))
        elif scope["type"] == "websocket":
            await WebSocketClose(code=1008, reason=refusal[:120])(scope, receive, send)
        else:
            await PlainTextResponse(refusal + "\n", 403, HEADERS)(scope, receive, send)

    def refusal(self, hosts: list[str], origins: list[str]) -> str | None:
        """Why a request with these headers is refused; None where it is not."""
        name = host_name(hosts[0]) if len(hosts) == 1 else None
        if name is None or not (name in self._names or (self._addresses and _is_address(name))):
            return "this server does not answer to that Host; name it by --allow-host"
        if len(origins) > 1 or (origins and not self._same(origins[0], hosts[0])):
            return "this server answers to its own pages only"
        return None

    @staticmethod
    def _same(origin: str, host: str) -> bool:
        scheme, separator, place = origin.partition("://")
        return bool(separator) and scheme in ("http", "https") and place.lower() == host.lower()

    @staticmethod
    def _with_headers(scope: Scope, host: str, send: Send) -> Send:
        if scope["type"] != "http":
            return send

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers["Content-Security-Policy"] = _POLICY.format(host=host)
            await send(message)

        return sending
