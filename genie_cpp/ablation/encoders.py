"""The data and the encoders that are probed: recorded, trained with full attention, fine-tuned with areas."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genie_cpp import _C
from genie_cpp.ablation.settings import Ablation
from genie_cpp.config_values import as_config, changed
from genie_cpp.errors import GenieError
from genie_cpp.probing.clips import Splits
from genie_cpp.probing.study import EncoderSource
from genie_cpp.vision import export_vjepa_checkpoint

Say = Callable[[str], None]
PROBE_SEED = 1000  # of the recordings for probes: others than the encoders learn from
FINETUNE = ("schedule=linear", "warmup_steps=0", "learning_rate=5.25e-4", "final_learning_rate=1e-6")


def training_file(settings: Ablation, out: Path) -> Path:
    """What the encoders learn from."""
    return Path(settings.data) if settings.data else out / "data/training.h5"


def probe_files(settings: Ablation, out: Path) -> list[Path]:
    """The recordings probes are trained and measured on."""
    names = settings.games or ["world_0", "world_1"]
    return [out / "data" / f"{name}.h5" for name in names]


def make_data(settings: Ablation, out: Path, say: Say) -> None:
    """Records games, or makes synthetic worlds, as far as they are needed and not there."""
    data = as_config(settings.training)
    size = _frame_size(data)
    for path in probe_files(settings, out):
        if needs_recordings(settings) and not path.is_file():
            say(f"  {path.name}")
            _record(settings, path, PROBE_SEED, size)
    target = training_file(settings, out)
    if settings.data:
        _C.VideoFile(settings.data)  # says what is wrong with it now, not hours later
    elif not target.is_file():
        from genie_cpp.data.joining import join_videos

        parts = []
        for path in probe_files(settings, out):
            parts.append(path.with_name(f"training_{path.name}"))
            if not parts[-1].is_file():
                say(f"  {parts[-1].name}")
                _record(settings, parts[-1], 0, size)
        unfinished = target.with_suffix(".part")
        join_videos(parts, unfinished)
        unfinished.rename(target)


def needs_recordings(settings: Ablation) -> bool:
    """Whether a task's clips come from recordings of setup."""
    return any(source.kind != "manifests" and not source.paths for source in settings.clips.values())


def _frame_size(config: _C.Config) -> int:
    from genie_cpp.config_values import values

    data = values(config)["data"]
    if data["height"] != data["width"]:
        raise GenieError(f"recordings are square, but data is {data['width']}x{data['height']}; name files")
    return int(data["height"])


def _record(settings: Ablation, path: Path, seed: int, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    if settings.games:
        from genie_cpp.data.record import record_atari

        record_atari(unfinished, path.stem.removeprefix("training_"), settings.game_frames, size, seed, 200)
    else:
        number = int(path.stem[-1])
        _C.write_synthetic_world(str(unfinished), settings.game_frames, size, size, 12, seed + number)
    unfinished.rename(path)


def task_splits(settings: Ablation, out: Path) -> dict[str, Splits]:
    """The labelled clips of each task."""
    splits = {}
    for name, source in settings.clips.items():
        if source.kind != "manifests" and not source.paths:
            files = [str(path) for path in probe_files(settings, out)]
            if source.kind == "actions":
                files = [path for path in files if path.endswith("freeway.h5")] or files[:1]
            source = dataclasses.replace(source, paths=files)
        splits[name] = source.splits()
    return splits


def _train(settings: Ablation, out: Path, name: str, steps: int, *entries: str) -> None:
    from genie_cpp import training

    run = out / "encoders" / name
    config = changed(
        as_config(settings.training),
        f"data.path={training_file(settings, out)}",
        f"training.jepa.steps={steps}",
        *entries,
    )
    begun = (run / "jepa/checkpoints/latest").is_file()
    training.train(config, run, "jepa", lambda metrics: None, resume=begun)


def train_encoders(settings: Ablation, out: Path, say: Say) -> None:
    """Full attention (unless a checkpoint is given), areas fine-tuned from it, and full attention as long."""
    start = out / "encoders/start.safetensors"
    start.parent.mkdir(parents=True, exist_ok=True)
    entries = [f"training.jepa.{entry}" for entry in FINETUNE]
    if settings.checkpoint:
        export_vjepa_checkpoint(settings.checkpoint, start)
        entries.append("jepa.initial_strict=false")
    else:
        say(f"  full attention, {settings.pretrain_steps} steps")
        _train(settings, out, "full", settings.pretrain_steps)
        _C.save_safetensors(str(start), _C.load_jepa_weights(str(out / "encoders/full")))
    splits = (
        f"jepa.encoder.area_spatial_splits={settings.spatial_splits}",
        f"jepa.encoder.area_temporal_splits={settings.temporal_splits}",
    )
    for name, areas in (("area", "true"), ("full_as_long", "false")):
        say(f"  {name}, fine-tuned for {settings.finetune_steps} steps")
        _train(
            settings, out, name, settings.finetune_steps, *entries, *splits,
            f"jepa.initial_weights={start}", f"jepa.encoder.use_area_attention={areas}",
        )  # fmt: skip


def sources(settings: Ablation, out: Path) -> dict[str, EncoderSource]:
    """The encoders of the table, by the names they have in it."""
    areas: dict[str, Any] = {
        "use_area_attention": True,
        "area_spatial_splits": settings.spatial_splits,
        "area_temporal_splits": settings.temporal_splits,
    }
    runs = out / "encoders"
    if settings.checkpoint:
        model: dict[str, Any] = {"model": settings.model, "checkpoint": settings.checkpoint}
        full, untuned = EncoderSource(**model), EncoderSource(**model, options=areas)
    else:
        full = EncoderSource(run=str(runs / "full"))
        untuned = EncoderSource(run=str(runs / "full"), options=areas)
    return {
        "full attention": full,
        "areas, not fine-tuned": untuned,
        "areas, fine-tuned": EncoderSource(run=str(runs / "area")),
        "full attention, fine-tuned as long": EncoderSource(run=str(runs / "full_as_long")),
    }
