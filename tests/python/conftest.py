from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from attention_references import Place, cuda_lacks
from worlds import ShiftingWorld, write_shifting_world


def pytest_configure() -> None:
    """A background job of a shell starts with SIGINT ignored, and so would what the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A device and a dtype (attention_references.places); on CUDA with the kernels enabled."""
    from genie_cpp import ops

    where: Place = request.param
    if where.device == "cpu":
        yield where
        return
    if lack := cuda_lacks():
        pytest.skip(lack)
    ops.enable_unverified_cuda_kernels()
    yield where
    ops.enable_unverified_cuda_kernels(False)


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
