"""Labelled video files as V-JEPA 2 lists them: a line `path label` a video."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from genie_cpp.data.importing import fit_frame, open_video
from genie_cpp.errors import GenieError

SUFFIXES = frozenset({".mp4", ".webm", ".mkv", ".avi", ".mov"})
PATH_COLUMNS = ("path", "video", "file", "filename")


@dataclass(frozen=True)
class Entry:
    """A video and its class."""

    path: Path
    label: int


def read_manifest(path: str | Path) -> list[Entry]:
    """The videos of a manifest. Paths may hold spaces; relative ones count from the manifest's folder.

    Raises GenieError naming the line that is no `path label`, and where listed videos are missing.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GenieError(f"{path}: can't be read as a manifest ({error})") from error
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, space, label = line.strip().rpartition(" ")
        if not space or not name.strip() or not label.isdecimal():
            raise GenieError(
                f"{path}, line {number}: expected `path label` with a label that counts from 0, got {line!r}"
            )
        entries.append(Entry(path.parent / name.strip(), int(label)))
    if not entries:
        raise GenieError(f"{path}: lists no video")
    missing = [entry.path for entry in entries if not entry.path.is_file()]
    if missing:
        raise GenieError(
            f"{path}: {len(missing)} of its {len(entries)} videos are missing, the first of them {missing[0]}"
        )
    return entries


def read_clip(path: str | Path, frames: int, frame_step: int, size: int) -> Tensor:
    """`frames` frames of a video, every `frame_step`-th, from its middle: uint8 (T,size,size,3).

    Frames are scaled so that the shorter side is `size`, and cut centrally. A video too short for the clip
    repeats its last frame. Raises GenieError for a file that is missing, no video, or damaged.
    """
    wanted = frames * frame_step
    images: list[np.ndarray] = []
    with open_video(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            total = stream.frames or _count_frames(path)
            begin = max(0, (total - wanted) // 2)
            for number, frame in enumerate(container.decode(stream)):
                if number >= begin and (number - begin) % frame_step == 0:
                    images.append(fit_frame(frame, size, size))
                if len(images) == frames:
                    break
        except av.FFmpegError as error:
            raise GenieError(f"{path}: damaged after {len(images)} frames ({error.strerror})") from error
    if not images:
        raise GenieError(f"{path}: holds no frame that can be decoded")
    images += [images[-1]] * (frames - len(images))
    return torch.from_numpy(np.stack(images))


def _count_frames(path: str | Path) -> int:
    """For containers that don't say how many frames they hold."""
    with open_video(path) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


def write_manifest(
    videos: str | Path,
    out: str | Path,
    annotations: str | Path | None = None,
    classes: str | Path | None = None,
) -> list[str]:
    """Writes a manifest of the folder `videos` to `out`, and its classes, a line each, to `out`.classes.txt.

    Without `annotations` each folder in `videos` is a class. `annotations` names videos and classes: a CSV
    with the columns `label` and `path` (or Kinetics' youtube_id, time_start, time_end), or a JSON list of
    objects with `label` or Something-Something's `template`, and `path` or `id`. Labels number the classes in
    alphabetical order; `classes`, such a file of another manifest, gives its numbers, so that the validation
    set has those of training. Returns the classes. Raises GenieError where nothing fits.
    """
    videos, out = Path(videos), Path(out)
    if not videos.is_dir():
        raise GenieError(f"{videos}: there is no such folder of videos")
    found = _of_folders(videos) if annotations is None else _of_annotations(Path(annotations), videos)
    if not found:
        raise GenieError(f"{videos}: holds no video that could be listed ({', '.join(sorted(SUFFIXES))})")
    names = sorted({name for _, name in found})
    if classes is not None:
        known = [line for line in Path(classes).read_text(encoding="utf-8").splitlines() if line]
        foreign = [name for name in names if name not in known]
        if foreign:
            raise GenieError(f"{classes}: does not list the class {foreign[0]!r} ({len(foreign)} unknown)")
        names = known
    numbers = {name: number for number, name in enumerate(names)}
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{path.resolve()} {numbers[name]}\n" for path, name in found]
    out.write_text("".join(lines), encoding="utf-8")
    out.with_name(f"{out.name}.classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return names


def _of_folders(videos: Path) -> list[tuple[Path, str]]:
    folders = sorted(folder for folder in videos.iterdir() if folder.is_dir())
    return [
        (path, folder.name)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]


def _of_annotations(annotations: Path, videos: Path) -> list[tuple[Path, str]]:
    rows = _read_annotations(annotations)
    by_name = {path.name: path for path in sorted(videos.rglob("*")) if path.suffix.lower() in SUFFIXES}
    by_stem = {path.stem: path for path in by_name.values()}
    found, absent = [], []
    for number, row in enumerate(rows, 1):
        name, label = _video_name(row), _class_name(row)
        if not name or not label:
            raise GenieError(
                f"{annotations}, entry {number}: names no video and class; it needs `label` (or `template`) "
                f"and `path`, `id` or `youtube_id`, got {', '.join(row)}"
            )
        path = videos / name if (videos / name).is_file() else by_name.get(name) or by_stem.get(name)
        if path is None:
            absent.append(name)
        else:
            found.append((path, label))
    if absent:
        raise GenieError(
            f"{annotations}: {len(absent)} of its {len(rows)} videos are not in {videos}, the first of them "
            f"{absent[0]}; take them out of the annotations or fetch them"
        )
    return found


def _read_annotations(path: Path) -> list[dict[str, str]]:
    try:
        if path.suffix.lower() != ".json":
            with path.open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise GenieError(f"{path}: can't be read as annotations ({error})") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise GenieError(f"{path}: expected a list of objects")
    return [{key: str(value) for key, value in entry.items()} for entry in entries]


def _video_name(row: dict[str, str]) -> str:
    for column in PATH_COLUMNS:
        if row.get(column):
            return row[column]
    if row.get("youtube_id") and row.get("time_start") and row.get("time_end"):
        return f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}"
    return row.get("id") or row.get("youtube_id") or ""


def _class_name(row: dict[str, str]) -> str:
    """Something-Something's templates bracket what its labels fill in: [something]."""
    if row.get("template"):
        return row["template"].replace("[", "").replace("]", "")
    return row.get("label") or ""
