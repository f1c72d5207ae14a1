from __future__ import annotations

from pathlib import Path

import pytest
from worlds import ShiftingWorld, write_shifting_world


@pytest.fixture
def shifting_file(tmp_path: Path) -> Path:
    path = tmp_path / "shifting.h5"
    write_shifting_world(path)
    return path


@pytest.fixture
def shifting_world(monkeypatch: pytest.MonkeyPatch) -> ShiftingWorld:
    """A model without weights that knows its world; genie_cpp.load returns it."""
    import genie_cpp

    world = ShiftingWorld()
    monkeypatch.setattr(genie_cpp, "load", lambda path, **options: world)
    return world
