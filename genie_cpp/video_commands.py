"""Commands of genie-cpp about video encoders: joining files, manifests, probes, the ablation of areas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

Register = Callable[..., Callable[[Callable[..., None]], Callable[..., None]]]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Sets one key; may be given several times."),
]


def _stdout() -> Console:
    return Console(highlight=False, soft_wrap=True)


def join(
    videos: Annotated[list[Path], typer.Argument(help="HDF5 video files with frames of one size.")],
    out: Annotated[Path, typer.Option(help="HDF5 file to write.")],
    frames: Annotated[
        int | None, typer.Option(help="Of each file whole episodes up to so many frames; default: all.")
    ] = None,
) -> None:
    """Put the episodes of several video files into one. Recorded actions are left out."""
    from genie_cpp.data.joining import join_videos

    count = join_videos(videos, out, frames)
    _stdout().print(f"{out}: {count} frames of {len(videos)} files")


def manifest(
    videos: Annotated[Path, typer.Argument(help="Folder of videos; each folder in it is a class.")],
    out: Annotated[Path, typer.Option(help="Manifest to write; the classes' names are put beside it.")],
    annotations: Annotated[
        Path | None, typer.Option(help="CSV or JSON that names videos and classes, in place of folders.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Classes of another manifest, whose numbers are used here too.")
    ] = None,
) -> None:
    """List labelled videos as V-JEPA 2 does: a line `path label` a video, labels in alphabetical order."""
    from genie_cpp.probing import read_manifest, write_manifest

    names = write_manifest(videos, out, annotations, classes)
    _stdout().print(f"{out}: {len(read_manifest(out))} videos of {len(names)} classes")


def vjepa_weights(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of V-JEPA 2 (.pt).")],
    out: Annotated[Path, typer.Option(help="Safetensors file to write.")],
) -> None:
    """Turn a checkpoint of V-JEPA 2 into what jepa.initial_weights starts from."""
    from genie_cpp.vision import export_vjepa_checkpoint

    _stdout().print(f"{out}: {len(export_vjepa_checkpoint(checkpoint, out))} weights")


def probe(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file, such as those of configs/eval.")],
    out: Annotated[Path, typer.Option(help="Folder for probes.csv and probes.md.")],
    overrides: Overrides = None,
) -> None:
    """Compare frozen video encoders by attentive probes on labelled clips that were not trained on."""
    from genie_cpp.probing.study import load_study, run_study

    study = load_study(config, overrides or [])
    table = run_study(study, _stdout().print)
    table.write(out / "probes.csv")
    (out / "probes.md").write_text(table.markdown() + "\n")
    _stdout().print(table.markdown())
    _stdout().print(f"figures: {out / 'probes.csv'}")


def ablate(
    what: Annotated[str, typer.Argument(help="What to ablate: area.")],
    out: Annotated[Path, typer.Option(help="Folder of the ablation; a run that stopped goes on there.")],
    preset: Annotated[
        str, typer.Option(help="cpu (for two cores), paper (ViT-L, on a GPU) or tiny (seconds).")
    ] = "cpu",
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file of keys that differ from the preset.")
    ] = None,
    overrides: Overrides = None,
    reset: Annotated[bool, typer.Option("--reset", help="Forget what is there and begin anew.")] = False,
    skip_setup: Annotated[
        bool, typer.Option("--skip-setup", help="Take the data that lie in --out without a look at them.")
    ] = False,
    eval_only: Annotated[
        bool, typer.Option("--eval-only", help="Probes and summary only, with the encoders that are there.")
    ] = False,
) -> None:
    """Measure area attention against full attention: speed, memory, and what frozen features are worth."""
    from genie_cpp.ablation import load_ablation, run_ablation
    from genie_cpp.errors import GenieError

    if what != "area":
        raise GenieError(f"what can be ablated is area, got {what!r}")
    settings = load_ablation(preset, config, overrides or [])
    console = _stdout()
    run_ablation(settings, out, console.print, reset=reset, skip_setup=skip_setup, eval_only=eval_only)


COMMANDS: list[tuple[Callable[..., Any], tuple[str, ...]]] = [
    (join, ("join", "genie-cpp join data/boxing.h5 data/pong.h5 --out data/games.h5")),
    (
        manifest,
        (
            "manifest",
            "genie-cpp manifest videos/train --out data/train.csv",
            "genie-cpp manifest videos/val --annotations val.json --classes data/train.csv.classes.txt "
            "--out data/val.csv",
        ),
    ),
    (vjepa_weights, ("vjepa-weights", "genie-cpp vjepa-weights vitl.pt --out data/vitl.safetensors")),
    (
        probe,
        (
            "probe",
            "genie-cpp probe --config configs/eval/vitl_k400_area.yaml --out runs/vitl_k400_area",
            "genie-cpp probe -c configs/eval/games_cpu.yaml --out runs/probe --set probe.epochs=5",
        ),
    ),
    (
        ablate,
        (
            "ablate",
            "genie-cpp ablate area --out runs/ablate",
            "genie-cpp ablate area --out runs/ablate --preset paper --set checkpoint=vitl.pt --set data=F.h5",
            "genie-cpp ablate area --out runs/ablate --eval-only",
        ),
    ),
]


def add_commands(command: Register) -> None:
    """Adds them to the program; `command` is its decorator (name, examples)."""
    for function, (name, *examples) in COMMANDS:
        command(name, *examples)(function)
