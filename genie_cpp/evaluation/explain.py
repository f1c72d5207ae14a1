"""The figures of an evaluation as rows a person can read: value, what it is compared with, how to read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from genie_cpp.evaluation.evaluate import Evaluation

AT = 4  # which frame of a rollout the rows show


@dataclass(frozen=True)
class Row:
    """One figure; `baselines` name the figures it is held against."""

    title: str
    key: str
    unit: str
    baselines: dict[str, str]
    reading: str


ROWS = [
    Row(
        "Tokenizer PSNR",
        "tokenizer_psnr",
        "dB",
        {"linear tokenizer": "kmeans_psnr"},
        "How closely frames survive being turned into tokens and back; 3 dB more is half the squared error.",
    ),
    Row(
        "Tokenizer SSIM",
        "tokenizer_ssim",
        "",
        {},
        "Likeness of local structure, 1 for identical frames; more sensitive to blur than PSNR.",
    ),
    Row(
        "Codes in use",
        "codebook_usage",
        "%",
        {},
        "Share of the codebook that occurs in these clips; a small share means that codes have died.",
    ),
    Row(
        "Codebook perplexity",
        "codebook_perplexity",
        "",
        {},
        "How many codes, used evenly, would say as much; backgrounds of one colour keep it low.",
    ),
    Row(
        "Next-frame token accuracy",
        "dynamics_accuracy",
        "%",
        {"copied frame": "copy_accuracy"},
        "Share of the next frame's tokens that the model names right, given the past and the latent action.",
    ),
    Row(
        "Accuracy on tokens that change",
        "dynamics_accuracy_changed",
        "%",
        {"copied frame": "copy_accuracy_changed"},
        "The same where something happens; a model that only copies has 0 here.",
    ),
    Row(
        "Next-frame cross-entropy",
        "dynamics_cross_entropy",
        "nats",
        {},
        "How surprised the model is by the true next token; guessing among 1024 codes would be 6.9.",
    ),
    Row(
        f"Rollout PSNR at t = {AT}",
        "rollout_psnr",
        "dB",
        {
            "copied frame": "copy_rollout_psnr",
            "mean frame": "mean_frame_psnr",
            "true tokens": "reconstruction_rollout_psnr",
        },
        "Likeness of a generated future to the true one; true tokens are the most the tokenizer allows.",
    ),
    Row(
        f"Rollout PSNR at t = {AT}, changing pixels",
        "rollout_psnr_changed",
        "dB",
        {
            "copied frame": "copy_rollout_psnr_changed",
            "mean frame": "mean_frame_psnr_changed",
            "true tokens": "reconstruction_rollout_psnr_changed",
        },
        "Only pixels that differ from the prompt's last frame: where a world model has to know what moves.",
    ),
    Row(
        f"Controllability (delta PSNR) at t = {AT}",
        "delta_psnr",
        "dB",
        {},
        "What is lost when the actions are random ones; above 0 the actions steer what happens.",
    ),
    Row(
        "Latent and true actions share",
        "action_mutual_information",
        "bits",
        {"best of 100 shuffles": "action_mutual_information_shuffled"},
        "Above the shuffles, the actions found without labels tell something about the buttons pressed.",
    ),
]


def number(value: Any, unit: str) -> str:
    """A figure (of a list, the one at t = AT) with its unit; a dash where there is none."""
    if isinstance(value, list):
        value = value[AT - 1] if len(value) >= AT else None
    if value is None:
        return "–"
    if unit == "%":
        return f"{100 * value:.1f} %"
    return f"{value:.3g} {unit}".rstrip() if abs(value) < 10 else f"{value:.1f} {unit}".rstrip()


def rows(figures: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Title, value, baselines and reading of each figure."""
    return [
        (
            row.title,
            number(figures.get(row.key), row.unit),
            ", ".join(f"{name} {number(figures.get(key), row.unit)}" for name, key in row.baselines.items()),
            row.reading,
        )
        for row in ROWS
    ]


def table(evaluation: Evaluation) -> Table:
    """The rows for a terminal."""
    about = evaluation.about
    result = Table(
        title=f"{about['data']}: {about['split']} clips ({about['split_reason']})", title_justify="left"
    )
    result.add_column("figure")
    result.add_column("value", justify="right")
    result.add_column("beside it")
    for title, value, baselines, _ in rows(evaluation.figures):
        result.add_row(title, value, baselines)
    for key, reason in evaluation.notes.items():
        result.caption = f"{result.caption or ''}{key}: {reason}\n"
    return result
