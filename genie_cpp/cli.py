"""The program genie-cpp. Nothing heavy is imported before a command needs it, so that --help is quick."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from genie_cpp import bench, video_commands

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Learn a playable world from plain video: make video files, train, look at the result, drive it.",
    epilog="Start with `genie-cpp demo`: it records a game, trains on it and writes a page about the result.",
)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; all keys: docs/configuration.md.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Sets one key; may be given several times."),
]
Seed = Annotated[int, typer.Option(help="Of everything random; the same seed gives the same result.")]


def _examples(*lines: str) -> str:
    return "**Examples**\n\n```\n" + "\n".join(lines) + "\n```"


def _is_user_error(error: Exception) -> bool:
    extension = sys.modules.get("genie_cpp._C")
    return isinstance(error, OSError) or (extension is not None and isinstance(error, extension.GenieError))


def _command(
    name: str, *examples: str, **settings: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose user errors are one line on stderr and exit code 1, and which Ctrl-C ends with 130."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @app.command(name, epilog=_examples(*examples), **settings)
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            console = Console(stderr=True, soft_wrap=True, highlight=False)
            try:
                function(*args, **kwargs)
            except KeyboardInterrupt:
                console.print("stopped")
                raise typer.Exit(130) from None
            except Exception as error:
                if not _is_user_error(error):
                    raise
                message = " ".join(str(error).split())
                console.print(f"[red]error: {escape(message)}[/red]")
                raise typer.Exit(1) from None

        return run

    return register


def _stdout() -> Console:
    return Console(highlight=False)


def _load_config(path: Path, overrides: list[str] | None, data: Path | None = None) -> Any:
    from genie_cpp import _C

    config = _C.Config.load(str(path))
    entries = [*(overrides or []), *([f"data.path={data}"] if data else [])]
    if entries:
        config.override(entries)
    return config


@_command("demo", "genie-cpp demo", "genie-cpp demo --out runs/pong --game pong --frames 6000")
def demo(
    out: Annotated[Path, typer.Option(help="Run directory; its report.html is what to look at.")] = Path(
        "runs/demo"
    ),
    game: Annotated[str, typer.Option(help="Atari game to learn.")] = "boxing",
    frames: Annotated[
        int, typer.Option(help="Frames to record; an existing recording is used again.")
    ] = 4000,
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = 0,
) -> None:
    """Record a game, train the three models on it, evaluate them, and write a page about it."""
    from genie_cpp.demo import demo_config, run_demo

    run_demo(_stdout(), out, game, frames, _load_config(config or demo_config(), overrides), seed)


@_command(
    "record",
    "genie-cpp record --game boxing --frames 4000 --out data/boxing.h5",
    "genie-cpp record --game breakout --size 84 --seed 7 --out data/breakout.h5",
)
def record(
    out: Annotated[Path, typer.Option(help="HDF5 file to write.")],
    game: Annotated[str, typer.Option(help="Atari game, by ale-py's name for it.")] = "boxing",
    frames: Annotated[int, typer.Option(help="Frames to record, 15 a second of play.")] = 4000,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 64,
    episode_length: Annotated[int, typer.Option(help="Frames after which a new game begins.")] = 250,
    seed: Seed = 0,
) -> None:
    """Play an Atari game at random and record it, actions included."""
    from genie_cpp.data.record import record_atari
    from genie_cpp.progress import counting

    with counting(_stdout(), game, frames) as done:
        record_atari(out, game, frames, size, seed, episode_length, done)
    _stdout().print(f"{out}: {frames} frames of {game}")


@_command(
    "import",
    "genie-cpp import holiday.mp4 --out data/holiday.h5",
    "genie-cpp import clips/*.webm --fps 15 --size 64x64 --out data/clips.h5",
)
def import_(
    videos: Annotated[
        list[Path], typer.Argument(help="Video files that FFmpeg reads; each becomes an episode.")
    ],
    out: Annotated[Path, typer.Option(help="HDF5 file to write.")],
    fps: Annotated[float, typer.Option(help="Frames a second to keep.")] = 10,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Pixels; the middle of each frame is kept.")
    ] = "128x72",
) -> None:
    """Turn ordinary videos (mp4, webm, mkv, ...) into a file to learn from. It has no actions."""
    from genie_cpp.data.importing import import_videos, parse_size
    from genie_cpp.progress import counting

    width, height = parse_size(size)
    with counting(_stdout(), "frames", None) as done:
        counts = import_videos(videos, out, fps, width, height, lambda _, total: done(total))
    _stdout().print(
        f"{out}: {sum(counts)} frames in {len(counts)} episodes, {width}x{height} at {fps:g} a second"
    )


@_command(
    "inspect",
    "genie-cpp inspect data/boxing.h5",
    "genie-cpp inspect runs/demo",
    "genie-cpp inspect runs/demo/dynamics/checkpoints/step_00000700",
    "genie-cpp inspect configs/demo.yaml",
)
def inspect(
    path: Annotated[
        Path, typer.Argument(help="A video file, a run directory, a checkpoint or a configuration.")
    ],
) -> None:
    """Show what a video file or a checkpoint holds, how far a run is, or every key of a configuration."""
    from genie_cpp.inspecting import describe

    _stdout().print(describe(path))


@_command(
    "train",
    "genie-cpp train --config configs/coinrun_cpu.yaml --data data/coinrun.h5 --out runs/coinrun",
    "genie-cpp train -c configs/demo.yaml --data data/boxing.h5 --out runs/boxing --phase dynamics "
    "--set training.dynamics.steps=2000",
    "genie-cpp train -c configs/demo.yaml --data data/boxing.h5 --out runs/boxing --resume",
    "genie-cpp train -c configs/jepa_cpu.yaml --data data/boxing.h5 --out runs/jepa --phase jepa",
    "WANDB_MODE=offline genie-cpp train -c configs/demo.yaml --data data/boxing.h5 --out runs/boxing "
    "--track tensorboard --track wandb",
)
def train(
    config: Annotated[
        Path, typer.Option("--config", "-c", help="YAML file; all keys: docs/configuration.md.")
    ],
    out: Annotated[Path, typer.Option(help="Run directory.")],
    data: Annotated[Path | None, typer.Option(help="HDF5 file; stands for data.path.")] = None,
    phase: Annotated[
        str, typer.Option(help="tokenizer, latent_action, dynamics, cotrain, jepa or all.")
    ] = "all",
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoints in --out.")
    ] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(help="tensorboard or wandb: figures and pictures go there too; may be given twice."),
    ] = None,
) -> None:
    """Train the tokenizer, the latent action model and the dynamics model, one after the other; or, with
    --phase jepa, a video encoder.

    On several processes: torchrun -m genie_cpp.train (docs/training.md).
    """
    from genie_cpp import _C
    from genie_cpp.errors import GenieError
    from genie_cpp.progress import train_phases
    from genie_cpp.runs import PHASES
    from genie_cpp.tracking import open_trackers

    if phase not in ("all", *PHASES):
        raise GenieError(f"phase must be one of {', '.join(PHASES)} or all, got {phase!r}")
    settings = _load_config(config, overrides, data)
    phases = _C.phase_names(settings) if phase == "all" else [phase]
    trackers = open_trackers(track or [], out, settings) if track else []
    try:
        seconds = train_phases(_stdout(), settings, str(out), phases, resume, trackers)
    finally:
        for tracker in trackers:
            tracker.close()
    after = "docs/area_attention.md" if phase == "jepa" else f"genie-cpp eval --model {out} --data FILE"
    _stdout().print(f"{out}: trained in {sum(seconds.values()):.0f} s; next: {after}")


@_command(
    "generate",
    "genie-cpp generate --model runs/demo --prompt runs/demo/boxing.h5:123 --actions 0,0,3,3 --out out.gif",
    "genie-cpp generate --model runs/demo --prompt runs/demo/boxing.h5:123 --actions 5,5,5,5 --context 4 "
    "--temperature 1 --scale 6 --out out.mp4",
)
def generate(
    model: Annotated[Path, typer.Option(help="Run directory of a trained model.")],
    prompt: Annotated[
        str, typer.Option(metavar="FILE:FRAME", help="Recorded frame to start from, counted from 0.")
    ],
    actions: Annotated[str, typer.Option(help="Latent actions, one a generated frame, separated by commas.")],
    out: Annotated[Path, typer.Option(help="File to write: .gif, .mp4, .webm, or .png for a strip.")],
    context: Annotated[int, typer.Option(help="Frames of the prompt, the last of them FRAME.")] = 1,
    steps: Annotated[
        int | None, typer.Option(help="MaskGIT steps a frame; default: inference.steps.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of sampling; default: inference.temperature.")
    ] = None,
    scale: Annotated[int, typer.Option(help="Shows each pixel as so many, both ways.")] = 4,
    fps: Annotated[float, typer.Option(help="Of the video written.")] = 10,
    seed: Seed = 0,
) -> None:
    """Drive a trained world: start from a recorded frame and go on with the actions you name."""
    import genie_cpp
    from genie_cpp import generation, viz
    from genie_cpp.errors import GenieError

    viz.check_suffix(out)
    if not 1 <= scale <= 64:
        raise GenieError(f"scale must be between 1 and 64, got {scale}")
    if not 0 < fps <= 240:
        raise GenieError(f"fps must be above 0 and at most 240, got {fps}")
    path, frame = generation.parse_prompt(prompt)
    genie = genie_cpp.load(model)
    chosen = generation.parse_actions(actions, genie.latent_action.num_actions)
    video = generation.read_prompt(path, frame, context, genie.config)
    frames = generation.play(genie, video, chosen, seed=seed, steps=steps, temperature=temperature)[0]
    viz.save(out, viz.upscale(frames, scale), fps)
    _stdout().print(f"{out}: {context} frames of the prompt and {len(chosen)} generated ones")


@_command(
    "play",
    "genie-cpp play runs/demo",
    "genie-cpp play runs/X --data data/other.h5 --port 9000 --no-browser",
)
def play(
    run: Annotated[Path, typer.Argument(help="Run directory of a trained model.")],
    data: Annotated[
        Path | None, typer.Option(help="HDF5 file to start from and to watch; default: the run's own.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other computers play.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8421,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Name that browsers may call this server by; may be given several times."),
    ] = None,
    max_sessions: Annotated[int, typer.Option(min=1, help="Pages that may play at once.")] = 64,
    idle_minutes: Annotated[
        float, typer.Option(min=0.1, help="Without an action before a page is disconnected.")
    ] = 15,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
) -> None:
    """Play a trained world in the browser, and watch what it learned from."""
    import genie_cpp
    from genie_cpp import play as page

    world = page.World(genie_cpp.load(run), data, run.resolve().name)

    def listening(address: str) -> None:
        _stdout().print(f"playing {run} at {address} (Ctrl-C ends it)")

    page.serve(
        world,
        host,
        port,
        limits=page.Limits(sessions=max_sessions, idle_seconds=60 * idle_minutes),
        allowed_hosts=allow_host or [],
        open_browser=browser,
        on_listening=listening,
    )


@_command(
    "eval",
    "genie-cpp eval --model runs/demo --data runs/demo/boxing.h5 --json runs/demo/eval.json",
    "genie-cpp eval --model runs/coinrun --data data/coinrun_val.h5 --split all --clips 128 --json eval.json",
)
def eval_(
    model: Annotated[Path, typer.Option(help="Run directory of a trained model.")],
    data: Annotated[Path, typer.Option(help="HDF5 file to evaluate on.")],
    json: Annotated[Path, typer.Option(help="File for the figures; a picture is put beside it, as .png.")],
    clips: Annotated[int, typer.Option(help="Clips for the tokenizer and the dynamics model.")] = 64,
    rollouts: Annotated[int, typer.Option(help="Clips that are continued for 10 frames, 5 times each.")] = 16,
    split: Annotated[
        str,
        typer.Option(
            help="validation, all, or auto: held-out episodes of the training file, all of another."
        ),
    ] = "auto",
    seed: Seed = 0,
) -> None:
    """Measure a trained world against recorded video and simple baselines."""
    import genie_cpp
    from genie_cpp import evaluation

    options = evaluation.EvaluationOptions(clips=clips, rollouts=rollouts, split=split, seed=seed)
    genie = genie_cpp.load(model)
    with _stdout().status("evaluating") as status:
        result = evaluation.evaluate(genie, data, options, lambda part: status.update(f"evaluating: {part}"))
    result.write_json(json)
    picture = json.with_suffix(".png")
    evaluation.save_picture(result, picture)
    _stdout().print(evaluation.table(result))
    _stdout().print(f"figures: {json}, picture: {picture}")


@_command("report", "genie-cpp report runs/X", "genie-cpp report runs/X --data data/other.h5 --clips 64")
def report(
    run: Annotated[Path, typer.Argument(help="Run directory; report.html is written into it.")],
    data: Annotated[
        Path | None, typer.Option(help="HDF5 file to evaluate on; default: the one that was trained on.")
    ] = None,
    clips: Annotated[int, typer.Option(help="Clips for the tokenizer and the dynamics model.")] = 16,
    rollouts: Annotated[int, typer.Option(help="Clips that are continued for 10 frames, 5 times each.")] = 8,
    seed: Seed = 0,
) -> None:
    """Write a page about a run: curves, configuration and, once it is trained, figures and pictures."""
    import genie_cpp
    from genie_cpp import evaluation
    from genie_cpp.config_values import values

    genie = genie_cpp.load(run, allow_untrained=True)
    settings = values(genie.config)["data"]
    result = None
    if not genie.untrained:
        options = evaluation.EvaluationOptions(clips=clips, rollouts=rollouts, seed=seed)
        source = data or settings["validation_path"] or settings["path"]
        with _stdout().status("evaluating"):
            result = evaluation.evaluate(genie, source, options)
    steps = [f"genie-train --config {run}/config.yaml --out {run} --resume"] if genie.untrained else []
    page = evaluation.write_report(genie, result, run, [*steps, f"genie-cpp inspect {run}"])
    untrained = f"; not trained yet: {', '.join(genie.untrained)}" if genie.untrained else ""
    _stdout().print(f"{page}{untrained}")


video_commands.add_commands(_command)
_command("bench", **bench.OPTIONS)(bench.bench)


def main() -> None:
    """The program genie-cpp."""
    app()


if __name__ == "__main__":
    main()
