"""The commands about video encoders, and phase jepa from the Python command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from test_cli import fails, run
from test_jepa_phase import CONFIG
from test_manifests import write_video

from genie_cpp import _C
from genie_cpp.probing.study import Study, load_study
from genie_cpp.vision import VisionPredictor, VisionTransformer, load_jepa_run

ENCODER = CONFIG["jepa"]["encoder"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


@pytest.mark.parametrize("command", ["join", "manifest", "vjepa-weights", "probe", "ablate"])
def test_help_has_examples(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0 and f"genie-cpp {command}" in result.output


def test_phase_jepa_trains_resumes_and_is_inspected(
    config: Path, shifting_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ["train", "-c", config, "--data", shifting_file, "--out", out, "--phase", "jepa"]
    result = run(*arguments, "--track", "tensorboard")
    assert result.exit_code == 0, result.output
    assert "docs/area_attention.md" in result.output and list((out / "tensorboard").iterdir())
    assert load_jepa_run(out)(torch.zeros(1, 3, 4, 16, 16)).shape == (1, 32, 24)
    assert run(*arguments, "--resume", "--set", "training.jepa.steps=8").exit_code == 0
    assert (out / "jepa/checkpoints/latest").read_text().strip() == "step_00000008"
    assert "jepa" in run("inspect", out).output
    message = fails("train", "-c", config, "--out", out, "--phase", "jeppa")
    assert "tokenizer, latent_action, dynamics, cotrain, jepa or all, got 'jeppa'" in message


def test_join_keeps_episodes_and_takes_whole_ones(tmp_path: Path) -> None:
    parts = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for seed, path in enumerate(parts):
        _C.write_synthetic_world(str(path), 40, 8, 8, 10, seed)
    out = tmp_path / "all.h5"
    assert run("join", *parts, "--out", out).exit_code == 0
    joined, second = _C.VideoFile(str(out)), _C.VideoFile(str(parts[1]))
    assert joined.episode_ends == [10, 20, 30, 40, 50, 60, 70, 80] and not joined.has_actions
    assert torch.equal(joined.read_frames(40, 40), second.read_frames(0, 40))
    run("join", *parts, "--out", out, "--frames", 25)
    assert _C.VideoFile(str(out)).episode_ends == [10, 20, 30, 40]
    _C.write_synthetic_world(str(tmp_path / "c.h5"), 40, 16, 8, 10)
    assert "frames of 8x16 pixels, but" in fails("join", *parts, tmp_path / "c.h5", "--out", out)


def test_manifest_writes_and_counts(tmp_path: Path) -> None:
    for name in ("b/1.mp4", "a/2.mp4"):
        write_video(tmp_path / "videos" / name, frames=2)
    output = run("manifest", tmp_path / "videos", "--out", tmp_path / "m.csv").output
    assert "2 videos of 2 classes" in output
    assert "no such folder" in fails("manifest", tmp_path / "none", "--out", tmp_path / "m.csv")


def jepa_models() -> tuple[VisionTransformer, VisionPredictor]:
    torch.manual_seed(0)
    sizes = {"patch_size": 4, "tubelet_size": 2}
    encoder = VisionTransformer(**sizes, embed_dim=24, depth=2, num_heads=2)
    predictor = VisionPredictor(
        (16, 16), num_frames=4, **sizes, embed_dim=24, predictor_embed_dim=16, depth=1, num_heads=2
    )
    return encoder, predictor


@pytest.mark.parametrize(
    "sections", [("encoder", "target_encoder", "predictor"), ("target_encoder", "predictor")]
)
def test_a_vjepa_checkpoint_starts_phase_jepa(
    config: Path, shifting_file: Path, tmp_path: Path, sections: tuple[str, ...]
) -> None:
    encoder, predictor = jepa_models()
    weights = {f"module.backbone.{name}": value for name, value in encoder.state_dict().items()}
    parts = dict.fromkeys(("encoder", "target_encoder"), weights)
    parts["predictor"] = {f"module.backbone.{n}": v for n, v in predictor.state_dict().items()}
    torch.save({**{s: parts[s] for s in sections}, "opt": {}, "epoch": 3}, tmp_path / "vjepa.pt")
    out = tmp_path / "start.safetensors"
    assert run("vjepa-weights", tmp_path / "vjepa.pt", "--out", out).exit_code == 0
    entries = (f"jepa.initial_weights={out}", "training.jepa.steps=1", "training.jepa.warmup_steps=0",
               "training.jepa.learning_rate=0")  # fmt: skip
    folder = tmp_path / "run"
    overrides = [part for entry in entries for part in ("--set", entry)]
    result = run(
        "train", "-c", config, "--data", shifting_file, "--out", folder, "--phase", "jepa", *overrides
    )
    assert result.exit_code == 0, result.output
    for name, value in load_jepa_run(tmp_path / "run", "encoder").state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name]), name
    torch.save({"classifier": {}}, tmp_path / "other.pt")
    message = fails("vjepa-weights", tmp_path / "other.pt", "--out", out)
    assert "has no section encoder or target_encoder; there are: classifier" in message


def test_probe_compares_runs_and_checkpoints(config: Path, shifting_file: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        _C.write_synthetic_world(str(tmp_path / f"w{seed}.h5"), 60, 16, 16, 10, seed)
    run("train", "-c", config, "--data", shifting_file, "--out", tmp_path / "run", "--phase", "jepa")
    torch.save({"target_encoder": jepa_models()[0].state_dict()}, tmp_path / "vjepa.pt")
    options = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
    study = {
        "clips": {
            "worlds": {
                "kind": "games", "paths": [str(tmp_path / f"w{s}.h5") for s in (0, 1)], "frames": 4,
                "counts": [8, 4, 4],
            }
        },
        "encoders": {
            "trained": {"run": str(tmp_path / "run")},
            "areas": {"run": str(tmp_path / "run"), "options": {"use_area_attention": True}},
            "given": {"model": "vit_tiny", "checkpoint": str(tmp_path / "vjepa.pt"), "options": options},
        },
        "probe": {"epochs": 1, "learning_rates": [1e-3], "depth": 1, "num_heads": 2},
        "seeds": [0, 1],
        "device": "cpu",
    }  # fmt: skip
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    result = run("probe", "-c", path, "--out", tmp_path / "out", "--set", "seeds=[3]")
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "out/probes.csv").read_text().splitlines()
    assert [line.split(",")[1:3] for line in lines[1:]] == [["trained", "3"], ["areas", "3"], ["given", "3"]]
    assert "| worlds | areas |" in (tmp_path / "out/probes.md").read_text()
    for entry, message in [
        ("probe.epochs=0", "epochs must be at least 1"),
        ("probes={}", "unknown key 'probes'; did you mean probe?"),
        ("encoders.trained={model: vit_tiny}", "has no `checkpoint`"),
        ("clips.worlds.kind=films", "must be manifests, games or actions, got 'films'"),
        ("seeds=3", "seeds: expected list, got 3"),
        ("device=gpuu", "device must be auto, cpu or cuda"),
    ]:
        assert message in fails("probe", "-c", path, "--out", tmp_path / "out", "--set", entry)


def test_ablate_names_what_can_be_ablated(tmp_path: Path) -> None:
    assert "what can be ablated is area, got 'head'" in fails("ablate", "head", "--out", tmp_path / "x")
    assert "preset must be one of" in fails("ablate", "area", "--out", tmp_path / "x", "--preset", "huge")


FOLDER = Path(__file__).parents[2] / "configs/eval"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_evaluation_loads_and_says_how_to_run_it(path: Path) -> None:
    study = load_study(path)
    assert isinstance(study, Study) and len(study.encoders) >= 3 and study.seeds == [0, 1, 2]
    assert f"#   genie-cpp probe --config configs/eval/{path.name} --out runs/" in path.read_text()
    for line in path.read_text().splitlines():
        value = line.strip() and not line.lstrip().startswith(("#", "-")) and not line.rstrip().endswith(":")
        assert not value or "  # " in line, line


def test_the_evaluations_of_vit_l_are_the_default_recipe() -> None:
    for name in ("vitl_k400_area", "vitl_ssv2_area"):
        study = load_study(FOLDER / f"{name}.yaml")
        assert study.probe == Study({}, {}).probe
        assert next(iter(study.clips.values())).frames == 16
