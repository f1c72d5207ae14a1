"""The benchmark's table at tiny sizes, and the comparison of two stored runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import genie
from typer.testing import CliRunner

import genie_cpp.bench
from genie_cpp.cli import app

FOLDER = Path(__file__).parents[2] / "benchmarks"
WITHOUT_PRODUCTS = ("ops/rope_3d", "ops/rope_register", "ops/maskgit_step", "loader/", "startup/")
RUN = {
    "environment": {"threads": 2, "capability": "AVX2", "torch": "2.13.0"},
    "rows": [
        {"row": "ops/a", "dtype": "float32", "ours_s": 1.0, "ours/plain": 0.5, "ours/products": 1.25},
        {"row": "ops/b", "dtype": "float32", "ours_s": 2.0, "ours/plain": 0.8},
        {"row": "ops/c", "dtype": "bfloat16", "beside": "float32", "ours_s": 1.0, "ours/plain": 0.7},
    ],
}


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules of benchmarks/, which aren't part of the package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import bench
    import compare
    import op_steps
    import plain

    return SimpleNamespace(bench=bench, compare=compare, op_steps=op_steps, plain=plain)


def changed(row: int, **values: float) -> dict[str, Any]:
    run = copy.deepcopy(RUN)
    run["rows"][row].update(values)  # type: ignore[attr-defined]
    return run


def stored(folder: Path, *runs: dict[str, Any]) -> list[str]:
    paths = [folder / f"{i}.json" for i in range(len(runs))]
    for path, run in zip(paths, runs, strict=True):
        path.write_text(json.dumps(run))
    return [str(path) for path in paths]


def test_every_row_has_ours_plain_and_the_products_and_is_stored(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("h5py")
    threads = torch.get_num_threads()
    plan = scripts.bench.Plan(
        rounds=1,
        sizes=scripts.plain.Sizes(
            size=16,
            frames=4,
            batch=2,
            action_patch=8,
            dim=32,
            heads=2,
            tokenizer_depth=1,
            dynamics_depth=2,
            codes=16,
            code_dim=8,
            actions=4,
        ),
        models=("dynamics",),
        maskgit_steps=3,
        shapes=scripts.op_steps.Shapes(
            batch=1,
            frames=4,
            places=16,
            heads=2,
            head_dim=16,
            codes=16,
            code_dim=8,
            tokens=64,
            grid=4,
            vit_heads=2,
            vit_head_dim=24,
        ),
        loader_frames=128,
        loader_batches=4,
    )
    path = tmp_path / "folder" / "bench.json"
    scripts.bench.run(list(scripts.bench.GROUPS), plan, path)
    run = json.loads(path.read_text())
    assert run["environment"]["threads"] == threads and run["environment"]["processor"]
    rows = run["rows"]
    assert {row["row"].split("/")[0] for row in rows} == set(scripts.bench.GROUPS)
    for row in rows:
        assert row["ours_s"] > 0 and row["plain_s"] > 0
        assert row["ours/plain"] == pytest.approx(row["ours_s"] / row["plain_s"])
        if row["row"].startswith(WITHOUT_PRODUCTS):
            assert row["products_s"] is None and "ours/products" not in row
        else:
            assert row["ours/products"] == pytest.approx(row["ours_s"] / row["products_s"])
    for dtype in ("float32", "bfloat16"):
        of_type = [row for row in rows if row["dtype"] == dtype]
        passes = [row["row"].split(", ")[1] for row in of_type if row["row"].startswith("ops/")]
        assert passes.count("forward + backward") == passes.count("forward") - 1  # maskgit_step: no gradient
        beside = scripts.bench.measure.yardstick(getattr(torch, dtype))
        for row in of_type:
            assert f"torch.{row.get('beside', row['dtype'])}" == str(beside)
        (step,) = [row for row in of_type if row["row"] == "steps/dynamics"]
        assert step["ours_gib"] > 0 and step["plain_as_is_s"] > 0
    for loader in (row for row in rows if row["row"].startswith("loader/")):
        assert 0 < loader["early_mib"] <= loader["late_mib"]
    assert scripts.compare.compare(run, run)


def test_results_that_differ_are_not_timed(scripts: SimpleNamespace) -> None:
    values = [torch.ones(8)]
    scripts.op_steps.check_equal("x", values, [torch.ones(8) + 1e-6], 1e-4)
    for wrong in (torch.ones(8) + 1e-2, torch.full((8,), torch.nan)):
        with pytest.raises(AssertionError, match="x: tensor 0 differs"):
            scripts.op_steps.check_equal("x", values, [wrong], 1e-4)


def test_seconds_are_never_compared(scripts: SimpleNamespace, tmp_path: Path) -> None:
    assert scripts.compare.main(stored(tmp_path, RUN, changed(0, ours_s=100.0))) == 0


@pytest.mark.parametrize(
    ("after", "worse"), [(0.5, False), (0.549, False), (0.551, True), (0.1, False), (float("nan"), True)]
)
def test_a_ratio_above_the_tolerance_is_worse_and_named(
    scripts: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], after: float, worse: bool
) -> None:
    files = stored(tmp_path, RUN, changed(0, **{"ours/plain": after}))
    assert scripts.compare.main(files) == int(worse)
    output = capsys.readouterr().out
    assert ("WORSE ops/a float32, ours/plain: 0.5 ->" in output) == worse
    assert f"{int(worse)} of 4 ratios" in output


def test_the_tolerance_can_be_set(scripts: SimpleNamespace, tmp_path: Path) -> None:
    files = stored(tmp_path, RUN, changed(0, **{"ours/products": 1.5}))
    assert scripts.compare.main([*files, "--tolerance", "0.25"]) == 0
    assert scripts.compare.main([*files, "--tolerance", "0.15"]) == 1


def test_rows_that_one_run_lacks_are_named(scripts: SimpleNamespace) -> None:
    for index, name in ((1, "ops/b float32 ours/plain"), (2, "ops/c bfloat16 beside float32 ours/plain")):
        less = copy.deepcopy(RUN)
        del less["rows"][index]  # type: ignore[attr-defined]
        with pytest.raises(scripts.compare.NotComparable, match=f"the second run has no '{name}'"):
            scripts.compare.compare(RUN, less)
        with pytest.raises(scripts.compare.NotComparable, match=f"the first run has no '{name}'"):
            scripts.compare.compare(less, RUN)


def test_other_threads_are_mentioned(
    scripts: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts.compare.main(stored(tmp_path, RUN, {**RUN, "environment": {**RUN["environment"], "threads": 8}}))
    assert "note: threads differs: 2 and 8" in capsys.readouterr().out


def test_the_program_passes_on_what_the_comparison_found(tmp_path: Path) -> None:
    files = stored(tmp_path, RUN, changed(1, **{"ours/plain": 0.9}))
    assert genie("bench", "compare", files[0], files[0]).returncode == 0
    worse = genie("bench", "compare", *files)
    assert worse.returncode == 1 and "WORSE ops/b" in worse.stdout
    broken = tmp_path / "broken.json"
    broken.write_text("[]")
    wrong = genie("bench", "compare", files[0], broken)
    assert wrong.returncode == 2
    assert wrong.stderr == f"error: {broken} is no result of genie-cpp bench --json\n"


def test_an_installed_package_without_a_checkout_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(genie_cpp.bench, "__file__", str(tmp_path / "site" / "genie_cpp" / "bench.py"))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["bench", "--rows", "ops"])
    assert result.exit_code == 1
    assert "needs the folder benchmarks/ of the source repository" in result.stderr
    assert len(result.stderr.splitlines()) == 1
