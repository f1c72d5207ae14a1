"""Dynamics training that reads tokens computed once: the losses of training that computes them each time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny import TINY

from genie_cpp import _C, GenieError, training
from genie_cpp.runs import read_metrics, series

CACHE = "training.token_cache=true"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    _C.write_synthetic_world(str(folder / "world.h5"), 120, 16, 16, 30, 0)
    (folder / "tiny.yaml").write_text(TINY)
    for phase in ("tokenizer", "latent_action"):
        train(folder, folder / "base", phase)
    train(folder, folder / "plain", "dynamics", base=folder / "base")
    return folder


def train(folder: Path, out: Path, phase: str, *settings: str, base: Path | None = None) -> list[float]:
    config = _C.Config.load(str(folder / "tiny.yaml"))
    config.override([f"data.path={folder / 'world.h5'}", "training.log_every=1", *settings])
    if base is not None and not out.exists():
        shutil.copytree(base, out)
    training.train(config, out, phase, resume=True, show_progress=False)
    return series(read_metrics(out, phase), "loss")[1]


def again(run: Path) -> None:
    """Dynamics from its start, with what the cache holds."""
    shutil.rmtree(run / "dynamics" / "checkpoints")


def test_cached_tokens_give_the_same_losses(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain = series(read_metrics(folder / "plain", "dynamics"), "loss")[1]
    for more in ((), ("training.dynamics.accumulation=2",)):
        run = folder / f"cached{len(more)}"
        cached = train(folder, run, "dynamics", CACHE, *more, base=folder / "base")
        assert len(cached) == len(plain) == 6
        assert all(abs(a - b) <= 1e-5 for a, b in zip(cached, plain, strict=True))
    assert "stale" not in capfd.readouterr().err
    # What is there is read: with all of it in place the models would not be needed.
    tokens = folder / "cached0" / "dynamics" / "token_cache" / "tokens.bin"
    before = tokens.stat().st_mtime_ns
    again(folder / "cached0")
    assert (
        train(folder, folder / "cached0", "dynamics", CACHE)
        == series(read_metrics(folder / "cached0", "dynamics"), "loss")[1]
    )
    assert tokens.stat().st_mtime_ns == before


def test_a_damaged_clip_is_computed_again(folder: Path) -> None:
    run = folder / "damaged"
    wanted = train(folder, run, "dynamics", CACHE, base=folder / "base")
    tokens = run / "dynamics" / "token_cache" / "tokens.bin"
    whole = tokens.read_bytes()
    at = next(place for place, byte in enumerate(whole) if byte)  # clips nobody reads are holes
    tokens.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    again(run)
    assert train(folder, run, "dynamics", CACHE) == wanted
    assert tokens.read_bytes() == whole


def test_a_cache_of_another_tokenizer_is_named_and_made_anew(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = folder / "stale"
    train(folder, run, "dynamics", CACHE, base=folder / "base")
    train(folder, run, "tokenizer", "training.tokenizer.steps=9")
    again(run)
    shutil.copytree(run, folder / "fresh")
    shutil.rmtree(folder / "fresh" / "dynamics")
    capfd.readouterr()
    losses = train(folder, run, "dynamics", CACHE)
    said = capfd.readouterr().err
    assert "the token cache is stale" in said and "tokenizer weights" in said
    assert "latent action weights" not in said
    fresh = train(folder, folder / "fresh", "dynamics")
    assert all(abs(a - b) <= 1e-5 for a, b in zip(losses, fresh, strict=True))


@pytest.mark.parametrize("setting", ["data.horizontal_flip=true", "training.cotrain.steps=500"])
def test_settings_that_a_cache_cannot_follow_are_refused(folder: Path, setting: str) -> None:
    with pytest.raises(GenieError, match=r"training\.token_cache"):
        train(folder, folder / "refused", "dynamics", CACHE, setting)
