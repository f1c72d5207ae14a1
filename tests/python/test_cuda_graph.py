"""training.cuda_graph: what it refuses, and on a GPU the losses of training without it."""

from __future__ import annotations

from pathlib import Path

import attention_references as references
import pytest
from tiny import TINY, execute, program

from genie_cpp import _C, GenieError, training
from genie_cpp.runs import read_metrics, series

GRAPH = "training.cuda_graph=true"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    _C.write_synthetic_world(str(folder / "world.h5"), 120, 16, 16, 30, 0)
    (folder / "tiny.yaml").write_text(TINY)
    return folder


def train(folder: Path, out: Path, *settings: str, phase: str = "all", resume: bool = False) -> None:
    config = _C.Config.load(str(folder / "tiny.yaml"))
    config.override([f"data.path={folder / 'world.h5'}", "training.log_every=1", *settings])
    training.train(config, out, phase, resume=resume, show_progress=False)


def test_a_run_on_the_cpu_is_refused_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(GenieError, match=r"on the CPU.*training\.cuda_graph=false"):
        train(folder, folder / "cpu", GRAPH)
    assert not (folder / "cpu").exists()


@pytest.mark.cuda
@pytest.mark.parametrize("kernels", ["0", "1"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_losses_on_a_gpu_are_those_of_training_without_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kernels: str, dtype: str
) -> None:
    if lack := references.cuda_lacks():
        pytest.skip(lack)
    monkeypatch.setenv("GENIE_UNVERIFIED_CUDA_KERNELS", kernels)
    losses = {}
    for graph in ("false", "true"):
        out = folder / f"gpu-{kernels}-{dtype}-{graph}"
        settings = ["training.device=cuda", f"training.dtype={dtype}", "training.log_every=1"]
        for phase in ("tokenizer", "latent_action", "dynamics"):
            settings += [f"training.{phase}.steps=12", f"training.{phase}.schedule=constant"]
        settings += [f"data.path={folder / 'world.h5'}", f"training.cuda_graph={graph}"]
        finished = execute(
            program("genie-train"),
            *("--config", folder / "tiny.yaml", "--out", out),
            *(word for setting in settings for word in ("--set", setting)),
        )
        assert finished.returncode == 0, finished.stderr
        assert ("never run on a GPU; compare" in finished.stderr) == (graph == "true")
        losses[graph] = [
            series(read_metrics(out, phase), "loss")[1]
            for phase in ("tokenizer", "latent_action", "dynamics")
        ]
    tolerance = 1e-3 if dtype == "float32" else 5e-2
    for plain, graph_losses in zip(losses["false"], losses["true"], strict=True):
        assert len(plain) == len(graph_losses) == 12
        for a, b in zip(plain, graph_losses, strict=True):
            assert abs(a - b) <= tolerance * abs(a)
