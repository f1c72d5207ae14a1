"""Labelled clips, split by episode: which game a clip shows, or which action was taken in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genie_cpp import _C
from genie_cpp.errors import GenieError

SHARES = (0.5, 0.2, 0.3)  # of the episodes: training, selection, test


@dataclass(frozen=True)
class ClipSet:
    """Clips with a class each: `labels` int64 (N); `read(i)` gives clip i as uint8 (T,H,W,3)."""

    labels: Tensor
    read: Callable[[int], Tensor]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """What probes are trained on, what the best of them is chosen by, and what it is measured on.

    No episode is in two of them. `test` is None where there are two sets only: then the best is chosen and
    measured on one, as V-JEPA 2 does, which flatters all encoders alike.
    """

    classes: list[str]
    training: ClipSet
    selection: ClipSet
    test: ClipSet | None = None

    @property
    def majority(self) -> float:
        """Accuracy of always saying the commonest class of the training clips."""
        commonest = self.training.labels.bincount(minlength=len(self.classes)).argmax()
        measured = self.test or self.selection
        return float((measured.labels == commonest).double().mean())


@dataclass(frozen=True)
class _Window:
    file: _C.VideoFile
    begin: int
    label: int


def _split_episodes(file: _C.VideoFile, seed: int) -> list[list[tuple[int, int]]]:
    """The frame ranges of a file's episodes for training, selection and test, by a seeded permutation."""
    ends = file.episode_ends
    ranges = list(zip([0, *ends[:-1]], ends, strict=True))
    if len(ranges) < len(SHARES):
        raise GenieError(
            f"{file.path}: {len(ranges)} episodes can't be split into training, selection and test; record "
            f"at least {len(SHARES)}"
        )
    order = torch.randperm(len(ranges), generator=torch.Generator().manual_seed(seed)).tolist()
    first = max(1, min(len(ranges) - 2, round(SHARES[0] * len(ranges))))
    second = max(first + 1, min(len(ranges) - 1, round((SHARES[0] + SHARES[1]) * len(ranges))))
    return [[ranges[i] for i in part] for part in (order[:first], order[first:second], order[second:])]


def _clip_set(windows: list[_Window], frames: int, count: int, seed: int, what: str) -> ClipSet:
    if not windows:
        raise GenieError(f"no {what} episode has {frames} frames: record longer episodes")
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = [windows[i] for i in order[:count]]

    def read(index: int) -> Tensor:
        window = chosen[index]
        return torch.as_tensor(window.file.read_frames(window.begin, frames))

    return ClipSet(torch.tensor([window.label for window in chosen]), read)


def _splits(
    classes: list[str],
    sources: Sequence[tuple[_C.VideoFile, Callable[[int], int]]],
    frames: int,
    counts: tuple[int, int, int],
    seed: int,
) -> Splits:
    parts: list[list[_Window]] = [[], [], []]
    for file, label in sources:
        for part, ranges in zip(parts, _split_episodes(file, seed), strict=True):
            for begin, end in ranges:
                for at in range(begin, end - frames + 1, frames):
                    part.append(_Window(file, at, label(at)))
    names = ("training", "selection", "test")
    sets = [
        _clip_set(part, frames, count, seed + i, names[i])
        for i, (part, count) in enumerate(zip(parts, counts, strict=True))
    ]
    return Splits(classes, *sets)


def game_splits(
    paths: Sequence[str | Path],
    frames: int,
    counts: tuple[int, int, int] = (400, 200, 400),
    seed: int = 0,
) -> Splits:
    """Which of the video files `paths` a clip of `frames` frames comes from; up to `counts` clips a set."""
    if len(paths) < 2:
        raise GenieError("to tell games apart there must be at least two video files")
    files = [_C.VideoFile(str(path)) for path in paths]
    sizes = {(file.height, file.width) for file in files}
    if len(sizes) > 1:
        raise GenieError(
            f"the games' files have frames of different sizes: {sorted(sizes)}; record them alike"
        )
    sources = [(file, lambda at, label=label: label) for label, file in enumerate(files)]
    return _splits([Path(path).stem for path in paths], sources, frames, counts, seed)


def action_splits(
    path: str | Path,
    frames: int,
    counts: tuple[int, int, int] = (400, 200, 400),
    seed: int = 0,
) -> Splits:
    """Which action was recorded between the two middle frames of a clip of `frames` frames."""
    if frames < 2:
        raise GenieError(f"an action lies between two frames, but clips have {frames}")
    file = _C.VideoFile(str(path))
    actions = file.actions
    if actions is None:
        raise GenieError(f"{path}: holds no recorded actions to recognise")
    taken = torch.as_tensor(actions).tolist()
    classes = [str(action) for action in range(file.num_actions)]
    return _splits(classes, [(file, lambda at: taken[at + frames // 2 - 1])], frames, counts, seed)


def manifest_splits(
    training: str | Path,
    validation: str | Path,
    frames: int = 16,
    frame_step: int = 4,
    size: int = 256,
    limit: int | None = None,
) -> Splits:
    """The clips of two of V-JEPA 2's manifests (`path label` a line); the first `limit` lines of each."""
    from genie_cpp.probing.manifests import read_clip, read_manifest

    sets, count = [], 0
    for path in (training, validation):
        entries = read_manifest(path)[:limit]
        count = max(count, 1 + max(entry.label for entry in entries))

        def read(index: int, entries: list = entries) -> Tensor:
            return read_clip(entries[index].path, frames, frame_step, size)

        sets.append(ClipSet(torch.tensor([entry.label for entry in entries]), read))
    return Splits([str(i) for i in range(count)], sets[0], sets[1])
