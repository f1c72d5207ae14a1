"""The ablation of area attention, from end to end on a tiny model, and what it does when it is stopped."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from genie_cpp import GenieError
from genie_cpp.ablation import PHASES, load_ablation, run_ablation, sweep
from genie_cpp.ablation.checks import CHECKS, run_checks
from genie_cpp.ablation.flops import area_sizes, flop_bound, stack_flops
from genie_cpp.ablation.summary import COLUMNS as SUMMARY_COLUMNS

ISSUE_COLUMNS = [
    "resolution", "config", "model", "crop_size", "num_frames", "batch_size", "total_tokens",
    "visible_tokens", "num_steps", "dtype", "device", "final_loss", "avg_step_ms", "peak_mem_mb",
    "throughput", "flop_bound",
]  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ablation") / "run"
    run_ablation(load_ablation("tiny"), out, lambda line: None)
    return out


def copied(finished: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_every_phase_leaves_its_marker_and_its_files(finished: Path) -> None:
    assert {path.stem for path in (finished / "markers").glob("*.done")} == set(PHASES)
    for name in ("sweep_results.csv", "sweep_summary.csv", "layers.csv", "probes.csv", "split_sweep.csv",
                 "speedup.png", "layers.png", "share.png", "splits.png", "summary.md"):  # fmt: skip
        assert (finished / name).stat().st_size > 0, name
    text = (finished / "summary.md").read_text()
    assert "| worlds | areas, fine-tuned |" in text and "## A training step" in text


def test_the_sweep_is_paired_and_says_what_was_measured(finished: Path) -> None:
    results = rows(finished / "sweep_results.csv")
    assert list(results[0])[: len(ISSUE_COLUMNS)] == ISSUE_COLUMNS
    assert [(r["resolution"], r["config"]) for r in results] == [
        ("16px_4f", "baseline"), ("16px_4f", "area"),
        ("24px_4f_unmasked", "baseline"), ("24px_4f_unmasked", "area"),
    ]  # fmt: skip
    for row in results:
        assert row["status"] == "ok" and row["device"] == "cpu" and row["dtype"] == "float32"
        assert (
            float(row["final_loss"]) > 0 and float(row["avg_step_ms"]) > 0 and float(row["peak_mem_mb"]) > 0
        )
        assert float(row["flop_bound"]) > 1
        assert float(row["throughput"]) * float(row["avg_step_ms"]) == pytest.approx(
            1000 * int(row["batch_size"])
        )
    assert [r["total_tokens"] for r in results] == ["32", "32", "72", "72"]
    assert [r["visible_tokens"] for r in results] == ["6", "6", "72", "72"]
    summary = rows(finished / "sweep_summary.csv")
    assert list(summary[0]) == SUMMARY_COLUMNS and len(summary) == 2
    best = [float(r["best_step_ms"]) for r in results[:2]]
    assert float(summary[0]["speedup"]) == pytest.approx(best[0] / best[1])


def test_the_probe_table_has_every_encoder_and_the_split_sweep_every_split(finished: Path) -> None:
    table = rows(finished / "probes.csv")
    assert [row["encoder"] for row in table] == [
        "full attention", "areas, not fine-tuned", "areas, fine-tuned", "full attention, fine-tuned as long",
    ]  # fmt: skip
    assert all(0 <= float(row["top1"]) <= 1 for row in table)
    splits = rows(finished / "split_sweep.csv")
    assert [(r["spatial_splits"], r["temporal_splits"]) for r in splits] == [
        ("1", "1"), ("1", "2"), ("2", "1"), ("2", "2"),
    ]  # fmt: skip
    assert float(splits[0]["flop_bound"]) == 1 and float(splits[3]["flop_bound"]) > 1


def test_a_stopped_run_goes_on_at_the_phase_and_the_row_it_was_in(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = copied(finished, tmp_path), list[str]()
    for phase in ("sweep", "fine_tune", "probes", "summary"):
        (out / f"markers/{phase}.done").unlink()
    lines = (out / "sweep_results.csv").read_text().splitlines(keepends=True)
    (out / "sweep_results.csv").write_text("".join(lines[:3]))  # the second resolution is missing
    done = []
    monkeypatch.setattr(
        "genie_cpp.ablation.sweep.sweep_resolution",
        lambda settings, resolution, *rest: done.append(resolution.name) or [],
    )
    monkeypatch.setattr("genie_cpp.ablation.encoders.train_encoders", lambda *rest: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_ablation(load_ablation("tiny"), out, said.append)
    assert done == ["24px_4f_unmasked"]
    assert "setup: done before" in said and "unit_checks: done before" in said
    assert (out / "markers/sweep.done").is_file() and not (out / "markers/fine_tune.done").exists()


def test_a_marked_run_does_nothing_and_eval_only_repeats_the_evaluation(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = copied(finished, tmp_path), list[str]()
    for phase in PHASES:
        monkeypatch.setattr(f"genie_cpp.ablation.runner.Run.{phase}", lambda self, p=phase: calls.append(p))
    run_ablation(load_ablation("tiny"), out, lambda line: None)
    assert calls == []
    run_ablation(load_ablation("tiny"), out, lambda line: None, eval_only=True)
    assert calls == ["probes", "summary"]
    calls.clear()
    run_ablation(load_ablation("tiny"), out, lambda line: None, reset=True, skip_setup=True)
    assert calls == PHASES[1:] and not (out / "sweep_results.csv").exists()


def test_other_settings_and_foreign_folders_are_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(GenieError, match="ablation of other settings"):
        run_ablation(load_ablation("tiny", None, ["num_steps=3"]), finished, lambda line: None)
    (tmp_path / "x.txt").write_text("mine")
    with pytest.raises(GenieError, match="is no ablation"):
        run_ablation(load_ablation("tiny"), tmp_path, lambda line: None, reset=True)
    assert (tmp_path / "x.txt").exists()
    with pytest.raises(GenieError, match="preset must be one of tiny, cpu, paper"):
        load_ablation("huge")
    with pytest.raises(GenieError, match="unknown key 'num_step'; did you mean num_steps"):
        load_ablation("tiny", None, ["num_step=3"])
    with pytest.raises(GenieError, match="num_steps: expected int, got 'many'"):
        load_ablation("tiny", None, ["num_steps=many"])
    path = tmp_path / "more.yaml"
    path.write_text("probe: {epochs: 7}\nseeds: [4]\n")
    changed = load_ablation("tiny", path)
    assert changed.probe.epochs == 7 and changed.probe.depth == 1 and changed.seeds == [4]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
     RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")],
)  # fmt: skip
def test_no_memory_is_a_row_and_the_other_configuration_is_measured(
    finished: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    settings = load_ablation("tiny")
    step = sweep.Side.step

    def limited(self: sweep.Side, *arguments: object) -> None:
        if self.name == "baseline" and len(self.times) == 1:
            raise error
        step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep.Side, "step", limited)
    result = sweep.sweep_resolution(
        settings, settings.resolutions[0], finished / "data/training.h5", torch.device("cpu"),
        torch.float32, lambda line: None,
    )  # fmt: skip
    assert [row["status"] for row in result] == ["out of memory", "ok"]
    assert result[0]["avg_step_ms"] == "" and result[1]["avg_step_ms"] > 0


def test_a_resolution_that_ends_the_process_becomes_a_row(finished: Path, tmp_path: Path) -> None:
    out = copied(finished, tmp_path)
    for phase in ("sweep", "summary"):
        (out / f"markers/{phase}.done").unlink()
    (out / "sweep_results.csv").unlink()
    for resolution in ("16px_4f", "24px_4f_unmasked"):
        (out / f"markers/sweep_{resolution}.begun").write_text("2")
    run_ablation(load_ablation("tiny"), out, lambda line: None)
    assert all(row["status"].startswith("ended by the system") for row in rows(out / "sweep_results.csv"))


def test_a_failed_check_stops_the_ablation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(run_checks(torch.device("cpu")).values())

    def wrong(device: torch.device) -> bool:
        return False

    monkeypatch.setattr("genie_cpp.ablation.checks.CHECKS", [*CHECKS, wrong])
    with pytest.raises(GenieError, match="unit checks failed on cpu: wrong"):
        run_checks(torch.device("cpu"))


def test_operations_are_those_of_the_known_bounds() -> None:
    for tokens, bound in ((512, 1.045), (1152, 1.097), (2048, 1.164), (4608, 1.318), (18432, 1.73)):
        assert abs(flop_bound([tokens // 4] * 4, 1024, 18, 24) - bound) <= 0.002
    assert flop_bound([100], 64, 3, 4) == 1
    one = stack_flops([[3, 5]], 8, 2, 1)
    assert one == 2 * 24 * 8 * 64 + 4 * 8 * (64 + 9 + 25)
    assert area_sizes(torch.arange(16)[None], (2, 4, 2), 2, 2) == [[4, 4, 4, 4]]
