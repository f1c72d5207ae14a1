from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result
from worlds import CONFIG, ShiftingWorld, write_shifting_world

from genie_cpp import _C
from genie_cpp.cli import app

COMMANDS = ["demo", "record", "import", "inspect", "train", "generate", "eval"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def fails(*arguments: object) -> str:
    """The one line a failing command leaves on stderr."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Examples" in result.output and f"genie-cpp {command}" in result.output


def test_help_does_not_load_torch() -> None:
    code = "import sys, genie_cpp.cli; print('torch' in sys.modules, 'genie_cpp._C' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


def test_a_users_error_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "genie_cpp.cli", "inspect", str(tmp_path / "missing [x].h5")]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "40"}
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "missing [x].h5" in result.stderr and "Traceback" not in result.stderr


def test_an_unknown_option_is_named() -> None:
    result = run("record", "--gane", "boxing")
    assert result.exit_code == 2
    assert "--gane" in result.output


def test_record_and_inspect(tmp_path: Path) -> None:
    out = tmp_path / "boxing.h5"
    assert run("record", "--frames", 40, "--size", 16, "--episode-length", 20, "--out", out).exit_code == 0
    output = run("inspect", out).output
    for part in ("40", "16x16 pixels", "15 frames a second", "atari/boxing", "2, 20 to 20 frames long", "18"):
        assert part in output
    assert "did you mean boxing" in fails("record", "--game", "boxin", "--out", out)


def test_inspect_a_file_without_actions(tmp_path: Path) -> None:
    write_shifting_world(tmp_path / "x.h5", actions=False)
    assert "not recorded" in run("inspect", tmp_path / "x.h5").output


def test_inspect_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(_C.Config.parse(CONFIG).to_yaml())
    (tmp_path / "tokenizer" / "checkpoints" / "step_20").mkdir(parents=True)
    lines = [{"step": 10, "loss": 0.5, "steps_per_second": 3.0}, {"step": 20, "validation_loss": 0.25}]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"step": 30, "lo'
    (tmp_path / "tokenizer" / "metrics.jsonl").write_text(text)
    output = run("inspect", tmp_path).output
    assert "step_20" in output and "0.5" in output and "0.25" in output and "not begun" in output
    assert "no config.yaml" in fails("inspect", tmp_path / "tokenizer")


def test_inspect_a_configuration_names_a_wrong_key(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {num_frames: 8}\n")
    assert "num_frames: 8" in run("inspect", tmp_path / "a.yaml").output
    (tmp_path / "b.yaml").write_text("data: {num_framse: 8}\n")
    assert "num_framse" in fails("inspect", tmp_path / "b.yaml")


def test_train_refuses_what_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {num_frames: 8}\n")
    base = ("train", "--config", tmp_path / "a.yaml", "--out", tmp_path / "run")
    assert "phase must be one of tokenizer" in fails(*base, "--phase", "tokeniser")
    assert "num_framse" in fails(*base, "--set", "data.num_framse=8")
    assert "missing.yaml" in fails("train", "--config", tmp_path / "missing.yaml", "--out", tmp_path / "run")


def test_import_says_what_it_wrote(tmp_path: Path) -> None:
    from test_data import make_video

    result = run("import", make_video(tmp_path / "a.mp4"), "--size", "32x16", "--out", tmp_path / "a.h5")
    assert result.exit_code == 0, result.output
    assert "10 frames in 1 episodes, 32x16 at 10 a second" in result.output
    assert "WIDTHxHEIGHT" in fails("import", tmp_path / "a.mp4", "--size", "32", "--out", tmp_path / "a.h5")


def test_generate_moves_the_world_by_the_actions(
    shifting_world: ShiftingWorld, shifting_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    arguments = ("--model", "runs/x", "--prompt", f"{shifting_file}:30", "--actions", "1,0,2", "--scale", 1)
    result = run("generate", *arguments, "--out", out)
    assert result.exit_code == 0, result.output
    strip = np.asarray(Image.open(out))
    columns = [int(strip[0, 18 * frame : 18 * frame + 16, 0].argmax()) // 4 for frame in range(4)]
    assert columns == [0, 1, 1, 3]  # episodes begin with the column at the left
    gif = tmp_path / "out.gif"
    assert (
        run("generate", *arguments, "--context", 1, "--steps", 3, "--temperature", 0, "--out", gif).exit_code
        == 0
    )
    assert Image.open(gif).size == (16, 16)


def test_generate_refuses_what_cannot_be(
    shifting_world: ShiftingWorld, shifting_file: Path, tmp_path: Path
) -> None:
    def error(
        prompt: str = f"{shifting_file}:33", actions: str = "0", out: str = "out.gif", *more: object
    ) -> str:
        base = (
            "generate",
            "--model",
            "runs/x",
            "--prompt",
            prompt,
            "--actions",
            actions,
            "--out",
            tmp_path / out,
        )
        return fails(*base, *more)

    assert "frames 0..239, the prompt asks for frame 240" in error(f"{shifting_file}:240")
    assert "FILE.h5:FRAME" in error(str(shifting_file))
    assert "FILE.h5:FRAME" in error(f"{shifting_file}:-1")
    assert "numbers 0..3" in error(actions="0,4")
    assert "got ''" in error(actions="0,,1")
    assert "choose one of .gif" in error(out="out.avi")
    assert "before their episode does at 30" in error(f"{shifting_file}:33", "0", "out.gif", "--context", 5)
    assert "context must be 1..7" in error(f"{shifting_file}:59", "0", "out.gif", "--context", 8)
    assert "scale must be" in error(f"{shifting_file}:59", "0", "out.gif", "--scale", 0)
    assert "missing.h5" in error(f"{tmp_path}/missing.h5:0")


def test_eval_prints_and_writes(shifting_world: ShiftingWorld, shifting_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "eval.json"
    base = ("eval", "--model", "runs/x", "--data", shifting_file, "--json", out)
    result = run(*base, "--clips", 4, "--rollouts", 3)
    assert result.exit_code == 0, result.output
    assert "Tokenizer PSNR" in result.output and "100.0 %" in result.output
    assert json.loads(out.read_text())["dynamics_accuracy"] == 1
    assert Image.open(out.with_suffix(".png")).size[0] > 300
    assert "clips must be at least 1" in fails(*base, "--clips", 0)
    assert "split must be" in fails(*base, "--split", "test")
