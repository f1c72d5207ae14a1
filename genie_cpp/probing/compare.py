"""Several frozen encoders under the same probes: one table."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from genie_cpp.probing.clips import Splits
from genie_cpp.probing.features import cache_features
from genie_cpp.probing.sweep import ProbeRecipe, SweepResult, train_probes
from genie_cpp.vision import VisionTransformer

COLUMNS = ["task", "encoder", "seed", "top1", "selection_top1", "learning_rate", "weight_decay",
           "majority_top1", "classes", "training_clips", "test_clips"]  # fmt: skip


@dataclass
class ProbeTable:
    """Rows of COLUMNS, one an encoder and seed."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def add(self, task: str, encoder: str, seed: int, splits: Splits, result: SweepResult) -> None:
        best = result.best
        values = [task, encoder, seed, result.accuracy, best.selection, best.learning_rate, best.weight_decay,
                  splits.majority, len(splits.classes), len(splits.training),
                  len(splits.test or splits.selection)]  # fmt: skip
        self.rows.append(dict(zip(COLUMNS, values, strict=True)))

    def write(self, path: str | Path) -> None:
        """As CSV."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)

    def markdown(self) -> str:
        """Means over seeds with the sample deviation, and each seed's figure, in percent."""
        lines = [
            "| task | encoder | top-1, % | each seed | always the commonest class |",
            "|---|---|---|---|---|",
        ]
        for task, encoder in dict.fromkeys((row["task"], row["encoder"]) for row in self.rows):
            rows = [row for row in self.rows if (row["task"], row["encoder"]) == (task, encoder)]
            scores = [100 * float(str(row["top1"])) for row in rows]
            majority = 100 * float(str(rows[0]["majority_top1"]))
            spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
            lines.append(
                f"| {task} | {encoder} | {statistics.mean(scores):.1f}{spread} | "
                f"{', '.join(f'{score:.1f}' for score in scores)} | {majority:.1f} |"
            )
        return "\n".join(lines)


def probe_encoders(
    encoders: Mapping[str, Callable[[], VisionTransformer]],
    task: str,
    splits: Splits,
    recipe: ProbeRecipe | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    device: str | torch.device = "cpu",
    cache: str | Path | None = None,
    table: ProbeTable | None = None,
    progress: Callable[[str], None] | None = None,
) -> ProbeTable:
    """Probes each of `encoders` (made when its turn comes) on the same clips and adds its rows to `table`.

    A seed is that of the probes' start and of the order of their batches. `cache`: a folder for the features,
    removed when an encoder is done; in memory without.
    """
    table = table if table is not None else ProbeTable()
    for name, make in encoders.items():
        if progress is not None:
            progress(f"{task}: features of {name}")
        encoder = make().to(device)
        sets = {"training": splits.training, "selection": splits.selection, "test": splits.test}
        features = {
            key: cache_features(encoder, clips, path=None if cache is None else Path(cache) / f"{key}.bin")
            for key, clips in sets.items()
            if clips is not None
        }
        del encoder
        for seed in seeds:
            if progress is not None:
                progress(f"{task}: probes of {name}, seed {seed}")
            result = train_probes(
                features["training"], features["selection"], features.get("test"), len(splits.classes),
                recipe, seed, device,
            )  # fmt: skip
            table.add(task, name, seed, splits, result)
        if cache is not None:
            del features
            for path in Path(cache).glob("*.bin"):
                path.unlink()
    return table
