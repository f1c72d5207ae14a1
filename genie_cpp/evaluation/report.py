"""report.html: what a run has learned, on one page that needs no other file."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from PIL import Image

from genie_cpp import _C
from genie_cpp.evaluation import explain
from genie_cpp.evaluation.evaluate import Evaluation
from genie_cpp.evaluation.picture import scale_for
from genie_cpp.generation import play
from genie_cpp.runs import read_metrics, series
from genie_cpp.viz import strip, to_frames, upscale

HELD_FRAMES = 8
SHOWN_CLIPS = 3
PAGE = Path(__file__).with_name("report.html")
LEARNED = Path(__file__).with_name("report_learned.html")
NOT_TRAINED = "<p>Not all three models are trained yet, so there is nothing to show but the training.</p>"


def write_report(
    genie: Any, evaluation: Evaluation | None, run_dir: str | Path, next_steps: list[str]
) -> Path:
    """Writes run_dir/report.html and returns its path. `next_steps` are commands, printed at its end.

    Without an evaluation (a run that isn't trained to its end) it has the curves and the configuration."""
    action_rows = []
    if evaluation is not None and evaluation.rollouts is not None:
        prompt = evaluation.rollouts.prompt[:1]
        count = genie.latent_action.num_actions
        held = torch.arange(count)[:, None].expand(-1, HELD_FRAMES)
        action_rows = list(play(genie, prompt.expand(count, -1, -1, -1, -1), held)[:, prompt.shape[1] - 1 :])
    page = render(
        evaluation,
        action_rows,
        loss_curves(run_dir, _C.phase_names(genie.config)),
        next_steps,
        genie.config.to_yaml(),
    )
    path = Path(run_dir) / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def render(
    evaluation: Evaluation | None,
    action_rows: list[np.ndarray],
    curves: bytes,
    next_steps: list[str],
    config: str,
) -> str:
    """The page; `action_rows`: frames (T,H,W,3) for each latent action, `curves`: an SVG, `config`: YAML."""
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        learned=_learned(evaluation, action_rows) if evaluation else NOT_TRAINED,
        curves=_image(curves, "image/svg+xml", "loss curves"),
        config=html.escape(config),
        next="".join(f"<pre>{html.escape(command)}</pre>" for command in next_steps),
    )


def _learned(evaluation: Evaluation, action_rows: list[np.ndarray]) -> str:
    """Figures and pictures of a run that is trained to its end."""
    figures = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in explain.rows(evaluation.figures)
    )
    notes = "".join(
        f"<li><code>{html.escape(key)}</code>: {html.escape(reason)}</li>"
        for key, reason in evaluation.notes.items()
    )
    about = evaluation.about
    return Template(LEARNED.read_text(encoding="utf-8")).substitute(
        data=html.escape(f"{about['data']}, {about['split']} clips ({about['split_reason']})"),
        figures=figures,
        notes=f"<ul>{notes}</ul>" if notes else "",
        reconstructions=_pairs(evaluation.clips, evaluation.reconstructions, "original", "reconstruction"),
        rollouts=_rollouts(evaluation),
        actions=_actions(action_rows),
    )


def loss_curves(run_dir: str | Path, phases: list[str]) -> bytes:
    """Training and validation loss of these phases as SVG, legible on light and dark."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    grey = "#888888"
    colours = {f"{part}.color": grey for part in ("xtick", "ytick", "text")}
    style = {**colours, "axes.edgecolor": grey, "axes.labelcolor": grey, "svg.hashsalt": "genie"}
    with plt.rc_context(style):
        figure, axes = plt.subplots(1, len(phases), figsize=(11, 3), layout="constrained", squeeze=False)
        for axis, phase in zip(axes[0], phases, strict=True):
            entries = read_metrics(run_dir, phase)
            for key, label in (("loss", "training"), ("validation_loss", "validation")):
                steps, losses = series(entries, key)
                if steps:
                    axis.plot(
                        steps, losses, label=label, linewidth=1.5, marker="." if key != "loss" else None
                    )
            axis.set(title=phase, xlabel="step")
            if axis.lines:
                axis.set_yscale("log")
                axis.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    return buffer.getvalue()


def _image(content: bytes, kind: str, label: str, width: int | None = None) -> str:
    size = f' width="{width}"' if width else ""
    data = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(label)}"{size} src="data:{kind};base64,{data}">'


def _strip(frames: np.ndarray, label: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(strip(upscale(frames, scale_for(frames.shape[1])))).save(buffer, "PNG", optimize=True)
    return _image(buffer.getvalue(), "image/png", label)


def _gif(frames: np.ndarray, label: str) -> str:
    images = [Image.fromarray(frame) for frame in upscale(frames, scale_for(frames.shape[1]))]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=120, loop=0)
    return _image(buffer.getvalue(), "image/gif", label)


def _row(label: str, content: str) -> str:
    return f'<div class="row"><span>{html.escape(label)}</span>{content}</div>'


def _pairs(above: torch.Tensor, below: torch.Tensor, first: str, second: str) -> str:
    parts = []
    for a, b in zip(above[:SHOWN_CLIPS], below[:SHOWN_CLIPS], strict=True):
        parts.append(_row(first, _strip(to_frames(a[:HELD_FRAMES]), first)))
        parts.append(_row(second, _strip(to_frames(b[:HELD_FRAMES]), second)))
    return "".join(parts)


def _rollouts(evaluation: Evaluation) -> str:
    if evaluation.rollouts is None:
        return "<p>The file's episodes are too short for rollouts.</p>"
    return _pairs(evaluation.rollouts.true, evaluation.rollouts.generated, "true future", "generated")


def _actions(action_rows: list[np.ndarray]) -> str:
    return "".join(
        _row(
            f"action {action}", _gif(frames, f"action {action}, moving") + _strip(frames, f"action {action}")
        )
        for action, frames in enumerate(action_rows)
    )
