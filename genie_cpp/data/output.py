"""A video file appears under its name only when it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genie_cpp import _C


@contextmanager
def new_video_file(
    path: str | Path, height: int, width: int, fps: float, env: str, num_actions: int
) -> Iterator[Any]:
    """A _C.VideoWriter; an interruption leaves neither a partial file nor a changed older one behind."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    writer = _C.VideoWriter(str(partial), height, width, fps=fps, env=env, num_actions=num_actions)
    try:
        yield writer
        writer.close()
        os.replace(partial, path)
    finally:
        del writer
        partial.unlink(missing_ok=True)
