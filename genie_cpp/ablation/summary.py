"""Tables and charts of an ablation."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

SHARED = ("resolution", "model", "batch_size", "total_tokens", "visible_tokens", "dtype", "device",
          "num_steps", "flop_bound")  # fmt: skip
COLUMNS = [*SHARED, "baseline_ms", "area_ms", "speedup", "share_of_bound", "baseline_mem_mb", "area_mem_mb",
           "baseline_loss", "area_loss", "status"]  # fmt: skip


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def _ratio(over: float | None, under: float | None) -> float | str:
    return over / under if over is not None and under else ""


def write_sweep_summary(rows: list[dict[str, Any]], path: Path) -> None:
    """A row a resolution, both configurations beside each other; times are of the fastest step."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for name in dict.fromkeys(row["resolution"] for row in rows):
            pair = {row["config"]: row for row in rows if row["resolution"] == name}
            base, area = pair["baseline"], pair["area"]
            times = [_number(side["best_step_ms"]) for side in (base, area)]
            speedup, bound = _ratio(*times), _number(base["flop_bound"])
            writer.writerow(
                {key: base[key] for key in SHARED}
                | {"baseline_ms": base["best_step_ms"], "area_ms": area["best_step_ms"], "speedup": speedup,
                   "share_of_bound": _ratio(_number(speedup), bound),
                   "baseline_mem_mb": base["peak_mem_mb"], "area_mem_mb": area["peak_mem_mb"],
                   "baseline_loss": base["final_loss"], "area_loss": area["final_loss"],
                   "status": base["status"] if base["status"] != "ok" else area["status"]}
            )  # fmt: skip


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_summary(out: Path) -> None:
    """summary.md, and as PNG: speedup, layers, share, splits; each as far as there are figures for it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    for name, draw, path in (
        ("speedup", draw_speedup, "sweep_summary.csv"),
        ("layers", draw_layers, "layers.csv"),
        ("share", draw_share, "layers.csv"),
        ("splits", draw_splits, "split_sweep.csv"),
    ):
        rows = _read(out / path)
        if rows:
            figure, axis = plt.subplots(figsize=(6, 3.5))
            draw(axis, rows)
            figure.tight_layout()
            figure.savefig(out / f"{name}.png", dpi=120)
            plt.close(figure)
    (out / "summary.md").write_text(summary_text(out))


def draw_speedup(axis: Any, rows: list[dict[str, str]]) -> None:
    """Measured speed-up of a training step against tokens, beside what its operations allow."""
    for masked, mark in ((True, "o-"), (False, "D")):
        chosen = [r for r in rows if r["speedup"] and r["resolution"].endswith("_unmasked") != masked]
        if chosen:
            tokens = [int(r["total_tokens"]) for r in chosen]
            kind = "masked" if masked else "unmasked"
            axis.plot(tokens, [float(r["speedup"]) for r in chosen], mark, label=f"measured, {kind}")
            axis.plot(tokens, [float(r["flop_bound"]) for r in chosen], "s--", label=f"FLOP bound, {kind}")
    axis.axhline(1, color="gray", linewidth=0.8)
    axis.set_xscale("log", base=2)
    axis.set_xlabel("tokens of a clip")
    axis.set_ylabel("full attention / area attention")
    if axis.get_legend_handles_labels()[0]:
        axis.legend()


def _times(row: dict[str, str]) -> tuple[float, float, float, float]:
    names = ("full_attention_ms", "area_attention_ms", "projections_ms", "mlp_ms")
    full, area, projections, mlp = (float(row[name]) for name in names)
    return full, area, projections, mlp


def draw_layers(axis: Any, rows: list[dict[str, str]]) -> None:
    """Time of each layer of the largest measured resolution, attention on top of what areas don't change."""
    measured = [row for row in rows if row["status"] == "ok"]
    if not measured:
        return
    row = max(measured, key=lambda row: int(row["total_tokens"]))
    full, area, projections, mlp = _times(row)
    count, inside = int(row["layers"]), int(row["area_layers"])
    index = range(count)
    attention = [area if i < inside else full for i in index]
    axis.bar(index, [mlp] * count, label="MLP")
    axis.bar(index, [projections] * count, bottom=mlp, label="projections")
    axis.bar(index, attention, bottom=mlp + projections, label="attention")
    axis.axhline(mlp + projections + full, color="gray", linestyle="--", label="a layer of full attention")
    axis.set_xlabel(f"layer ({row['total_tokens']} tokens)")
    axis.set_ylabel("forward, ms")
    axis.legend(fontsize=8)


def draw_share(axis: Any, rows: list[dict[str, str]]) -> None:
    """Attention's share of a layer's time, with full attention and with areas."""
    measured = sorted((r for r in rows if r["status"] == "ok"), key=lambda r: int(r["total_tokens"]))
    tokens = [int(row["total_tokens"]) for row in measured]
    times = [_times(row) for row in measured]
    axis.plot(tokens, [100 * f / (f + p + m) for f, _, p, m in times], "o-", label="full attention")
    axis.plot(tokens, [100 * a / (a + p + m) for _, a, p, m in times], "s-", label="areas")
    axis.set_xscale("log", base=2)
    axis.set_xlabel("tokens of a clip")
    axis.set_ylabel("attention, % of a layer")
    axis.legend()


def draw_splits(axis: Any, rows: list[dict[str, str]]) -> None:
    """Quality against speed of each split."""
    axis.plot([float(r["speedup"]) for r in rows], [100 * float(r["top1"]) for r in rows], "o")
    for row in rows:
        name = f"{row['spatial_splits']}x{row['temporal_splits']}"
        axis.annotate(name, (float(row["speedup"]), 100 * float(row["top1"])), fontsize=7)
    axis.set_xlabel("speed-up of the encoder (spatial x temporal splits)")
    axis.set_ylabel(f"{rows[0]['task']}: top-1, %")


def _shown(value: str) -> str:
    number = _number(value)
    return value if number is None or value.isdigit() else f"{number:.4g}"


def _table(rows: list[dict[str, str]], columns: list[str]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_shown(row[column]) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def summary_text(out: Path) -> str:
    """The tables of an ablation's folder as Markdown."""
    parts = ["# Area attention against full attention\n"]
    for title, path in (("A training step", "sweep_summary.csv"), ("A layer, forward", "layers.csv")):
        rows = _read(out / path)
        if rows:
            parts += [f"## {title}\n", _table(rows, list(rows[0])), ""]
    if (out / "probes.md").is_file():
        parts += ["## Frozen features\n", (out / "probes.md").read_text()]
    rows = _read(out / "split_sweep.csv")
    if rows:
        parts += ["## Splits, not fine-tuned\n", _table(rows, list(rows[0])), ""]
    return "\n".join(parts)
