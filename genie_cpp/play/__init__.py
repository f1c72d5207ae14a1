"""A learned world in the browser: `genie-cpp play`.

A local server (Starlette, uvicorn) holds one session of the model for each open page and sends its frames
over a WebSocket; the page is plain HTML, CSS and JavaScript in `static/`. Both are extras: pip install
"genie_cpp[play]".
"""

from __future__ import annotations

import importlib.util

from genie_cpp.errors import GenieError

_NEEDED = ("starlette", "uvicorn", "websockets")
_missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
if _missing:
    raise GenieError(
        f'genie-cpp play needs {", ".join(_missing)}, not installed here: pip install "genie_cpp[play]", '
        f"or {' '.join(_missing)}"
    )

from genie_cpp.play.app import create_app  # noqa: E402
from genie_cpp.play.limits import Limits  # noqa: E402
from genie_cpp.play.server import serve  # noqa: E402
from genie_cpp.play.world import World  # noqa: E402

__all__ = ["Limits", "World", "create_app", "serve"]
