"""Two processes on the CPU that train one model: the losses, checkpoints and ends of one process."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import TINY

from genie_cpp import _C, training
from genie_cpp.runs import read_metrics, series

STEPS = 20
# A batch of 4 by one process is 2 by each of two. All that draws random numbers is on, and codes die and are
# reset within the 20 steps.
SETTINGS = [
    "training.num_threads=1",
    "training.log_every=1",
    "training.checkpoint_every=10",
    "training.validate_every=10",
    "tokenizer.quantizer.num_codes=64",
    "tokenizer.quantizer.dead_code_steps=3",
    "tokenizer.initialization=random",
    "latent_action.quantizer.dead_code_steps=3",
    "latent_action.quantizer.num_codes=16",
    "latent_action.history_mask=0.3",
    "latent_action.change_weight=1",
    "dynamics.context_corruption=0.2",
    "dynamics.masked_frame_share=0.5",
]
for part in ("tokenizer.encoder", "latent_action.decoder", "dynamics.transformer"):
    SETTINGS += [f"{part}.depth=2", f"{part}.dropout=0.1", f"{part}.attention_dropout=0.1"]
    SETTINGS += [f"{part}.drop_path=0.2"]
THREE = ["tokenizer", "latent_action", "dynamics"]
for phase in THREE:
    SETTINGS += [f"training.{phase}.steps={STEPS}", f"training.{phase}.schedule=constant"]
COTRAIN = ["training.cotrain.schedule=constant", "training.cotrain.warmup_steps=2"]
COTRAIN += ["training.cotrain.learning_rate=1e-3", f"training.cotrain.steps={STEPS}"]


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def batch_of(size: int) -> list[str]:
    return [f"training.{phase}.batch_size={size}" for phase in [*THREE, "cotrain"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    _C.write_synthetic_world(str(folder / "world.h5"), 120, 16, 16, 30, 0)
    (folder / "tiny.yaml").write_text(TINY)
    return folder


def arguments(folder: Path, out: Path, *settings: str) -> list[str]:
    sets = [part for entry in settings for part in ("--set", entry)]
    data = ["--config", str(folder / "tiny.yaml"), "--data", str(folder / "world.h5")]
    return ["-m", "genie_cpp.train", *data, "--out", str(out), *sets]


def two_processes(folder: Path, out: Path, *settings: str, resume: bool = False) -> None:
    """By torchrun, which chooses a free port."""
    command = [sys.executable, *TORCHRUN, *arguments(folder, out, *SETTINGS, *batch_of(2), *settings)]
    result = subprocess.run(
        command + ["--resume"] * resume, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr


def one_process(folder: Path, out: Path, *settings: str, phase: str = "all", resume: bool = False) -> None:
    config = _C.Config.load(str(folder / "tiny.yaml"))
    config.override([f"data.path={folder / 'world.h5'}", *SETTINGS, *batch_of(4), *settings])
    training.train(config, out, phase, resume=resume, show_progress=False)


def assert_same_losses(run: Path, reference: Path, phases: list[str]) -> None:
    for phase in phases:
        for key in ("loss", "gradient_norm", "codebook_usage", "validation_psnr", "psnr", "accuracy"):
            steps, found = series(read_metrics(run, phase), key)
            wanted_steps, wanted = series(read_metrics(reference, phase), key)
            assert steps == wanted_steps and (key != "loss" or steps == list(range(1, STEPS + 1)))
            for step, a, b in zip(steps, found, wanted, strict=True):
                assert abs(a - b) <= 1e-5 * max(1, abs(b)), (phase, key, step, a, b)


@pytest.fixture(scope="module")
def one(folder: Path) -> Path:
    one_process(folder, folder / "one")
    return folder / "one"


@pytest.fixture(scope="module")
def two(folder: Path) -> Path:
    two_processes(folder, folder / "two")
    return folder / "two"


def step_back(run: Path, phases: list[str], to: Path) -> Path:
    """A copy that is where the run was after half of the steps of each of these phases."""
    shutil.copytree(run, to)
    for phase in phases:
        shutil.rmtree(to / phase / "checkpoints" / f"step_{STEPS:08d}")
        (to / phase / "checkpoints" / "latest").write_text(f"step_{STEPS // 2:08d}\n")
    return to


def test_two_processes_have_the_losses_of_one_with_the_whole_batch(one: Path, two: Path) -> None:
    assert_same_losses(two, one, THREE)


def test_cotraining_with_a_sharded_optimizer_on_two_processes_equals_one(folder: Path) -> None:
    one_process(folder, folder / "cotrain_one", *COTRAIN)
    two_processes(folder, folder / "cotrain_two", *COTRAIN, "training.shard_optimizer=true")
    assert_same_losses(folder / "cotrain_two", folder / "cotrain_one", ["tokenizer", "cotrain"])


def test_what_two_processes_saved_goes_on_with_one(folder: Path, one: Path, two: Path) -> None:
    run = step_back(two, ["dynamics"], folder / "two_then_one")
    one_process(folder, run, resume=True)
    assert_same_losses(run, one, THREE)


def test_what_one_process_saved_goes_on_with_two(folder: Path, one: Path) -> None:
    run = step_back(one, ["dynamics"], folder / "one_then_two")
    two_processes(folder, run, "training.shard_optimizer=true", "training.token_cache=true", resume=True)
    assert_same_losses(run, one, THREE)


LONG = "training.tokenizer.steps=1000000"


def begin_two(folder: Path, outs: list[Path]) -> list[subprocess.Popen[str]]:
    """Without torchrun, as a cluster starts them on its machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    return [
        subprocess.Popen(
            [sys.executable, *arguments(folder, out, *SETTINGS, LONG), "--peer-timeout", "8"],
            env={**os.environ, **meeting, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]


def wait_until_under_way(run: Path, processes: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + 120
    while len(read_metrics(run, "tokenizer")) < 30 and time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)


@pytest.mark.parametrize("lost, how", [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_where_one_process_is_lost_the_other_ends_soon_and_names_it(
    folder: Path, tmp_path: Path, lost: int, how: signal.Signals
) -> None:
    outs = [tmp_path / "first", tmp_path / "second"]
    processes = begin_two(folder, outs)
    try:
        wait_until_under_way(outs[0], processes)
        processes[lost].send_signal(how)
        begin = time.monotonic()
        error = processes[1 - lost].communicate(timeout=60)[1]
        assert time.monotonic() - begin <= 30
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert processes[1 - lost].returncode == 1
    assert re.search(f"error: rank {lost}[ ,]", error) and "Traceback" not in error, error
    assert not outs[1].exists(), "a process other than the first wrote"
    # The first one's checkpoints are whole, and one process goes on from them.
    newest = (outs[0] / "tokenizer" / "checkpoints" / "latest").read_text().strip()
    step = int(newest.removeprefix("step_"))
    one_process(folder, outs[0], f"training.tokenizer.steps={step + 1}", phase="tokenizer", resume=True)


def rank_of(pid: int) -> str | None:
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    found = [entry.removeprefix(b"RANK=").decode() for entry in entries if entry.startswith(b"RANK=")]
    return found[0] if found else None


def test_torchrun_ends_soon_where_a_process_is_killed_and_the_other_names_it(
    folder: Path, tmp_path: Path
) -> None:
    launch = [sys.executable, *TORCHRUN, *arguments(folder, tmp_path / "run", *SETTINGS, LONG)]
    launcher = subprocess.Popen(launch, stderr=subprocess.PIPE, text=True)
    try:
        wait_until_under_way(tmp_path / "run", [launcher])
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        second = [int(child) for child in children if rank_of(int(child)) == "1"]
        assert len(second) == 1
        os.kill(second[0], signal.SIGKILL)
        begin = time.monotonic()
        error = launcher.communicate(timeout=60)[1]
        assert time.monotonic() - begin <= 30
    finally:
        launcher.kill()
        launcher.wait()
    assert launcher.returncode != 0
    assert "error: rank 1 " in error, error
