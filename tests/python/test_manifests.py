"""V-JEPA 2's manifests: written from folders and annotations, read, and videos decoded."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from genie_cpp import GenieError
from genie_cpp.probing import manifest_splits, read_manifest, write_manifest
from genie_cpp.probing.manifests import read_clip


def write_video(path: Path, frames: int = 12, brightness: int = 0, size: tuple[int, int] = (48, 32)) -> Path:
    """Frame i is a grey of brightness + 8 i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], "yuv420p"
        stream.options = {"qscale": "2"}
        for i in range(frames):
            image = np.full((size[1], size[0], 3), brightness + 8 * i, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("walking the dog/a b.mp4", "archery/x.mp4", "archery/y.mp4"):
        write_video(tmp_path / "videos" / name)
    (tmp_path / "videos/archery/notes.txt").write_text("no video")
    return tmp_path / "videos"


def test_class_folders_become_a_manifest_with_alphabetical_labels(folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists/train.csv"
    assert write_manifest(folders, out) == ["archery", "walking the dog"]
    entries = read_manifest(out)
    assert [(e.path.name, e.label) for e in entries] == [("x.mp4", 0), ("y.mp4", 0), ("a b.mp4", 1)]
    assert (tmp_path / "lists/train.csv.classes.txt").read_text() == "archery\nwalking the dog\n"


@pytest.mark.parametrize("kind", ["path", "kinetics", "something"])
def test_annotations_become_a_manifest(tmp_path: Path, kind: str) -> None:
    names = {"path": "sub/v1.mp4", "kinetics": "Ab-1_000010_000020.mp4", "something": "77.webm"}
    video = tmp_path / "videos" / names[kind]
    write_video(video.with_suffix(".mp4")).rename(video)
    if kind == "something":
        notes = tmp_path / "train.json"
        notes.write_text(
            json.dumps([{"id": 77, "label": "pushing a cup", "template": "Pushing [something]"}])
        )
    else:
        notes = tmp_path / "train.csv"
        row = "Ab-1,10,20" if kind == "kinetics" else "sub/v1.mp4"
        header = "youtube_id,time_start,time_end" if kind == "kinetics" else "path"
        notes.write_text(f'label,{header}\n"Pushing something",{row}\n')
    assert write_manifest(tmp_path / "videos", tmp_path / "m.csv", notes) == ["Pushing something"]
    assert [entry.path for entry in read_manifest(tmp_path / "m.csv")] == [video]


def test_a_second_manifest_takes_the_numbers_of_the_first(folders: Path, tmp_path: Path) -> None:
    write_manifest(folders, tmp_path / "train.csv")
    write_video(tmp_path / "val/walking the dog/z.mp4")
    classes = tmp_path / "train.csv.classes.txt"
    write_manifest(tmp_path / "val", tmp_path / "val.csv", classes=classes)
    assert [entry.label for entry in read_manifest(tmp_path / "val.csv")] == [1]
    write_video(tmp_path / "val/swimming/z.mp4")
    with pytest.raises(GenieError, match="does not list the class 'swimming'"):
        write_manifest(tmp_path / "val", tmp_path / "val.csv", classes=classes)


def test_what_is_wrong_with_a_manifest_is_said(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    with pytest.raises(GenieError, match="can't be read as a manifest"):
        read_manifest(path)
    for text, message in [
        ("\n", "lists no video"),
        ("\nclip.mp4\n", "line 2: expected `path label`"),
        ("clip.mp4 dog\n", "line 1: .*got 'clip.mp4 dog'"),
        ("clip.mp4 -1\n", "a label that counts from 0"),
        ("a.mp4 0\nb.mp4 1\n", r"2 of its 2 videos are missing, the first of them .*a\.mp4"),
    ]:
        path.write_text(text)
        with pytest.raises(GenieError, match=message):
            read_manifest(path)


def test_what_is_wrong_with_annotations_is_said(folders: Path, tmp_path: Path) -> None:
    out, notes = tmp_path / "m.csv", tmp_path / "a.csv"
    with pytest.raises(GenieError, match="no such folder"):
        write_manifest(tmp_path / "none", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(GenieError, match="no video that could be listed"):
        write_manifest(tmp_path / "empty", out)
    notes.write_text("name,label\nx,archery\n")
    with pytest.raises(GenieError, match="entry 1: names no video and class.*got name, label"):
        write_manifest(folders, out, notes)
    notes.write_text("path,label\nx.mp4,archery\ngone.mp4,archery\n")
    with pytest.raises(GenieError, match="1 of its 2 videos are not in .*gone.mp4"):
        write_manifest(folders, out, notes)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(GenieError, match="expected a list of objects"):
        write_manifest(folders, out, tmp_path / "a.json")


def test_a_clip_is_the_middle_of_its_video_and_a_short_one_repeats_its_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=12)
    clip = read_clip(path, 4, 2, 16)
    assert clip.shape == (4, 16, 16, 3)
    grey = clip.float().mean((1, 2, 3))
    assert (grey - 8 * torch.tensor([2, 4, 6, 8])).abs().max().item() <= 4
    long = read_clip(path, 8, 4, 16).float().mean((1, 2, 3))
    assert (long - 8 * torch.tensor([0, 4, 8, 8, 8, 8, 8, 8])).abs().max().item() <= 4
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(GenieError, match="cannot be read as a video"):
        read_clip(tmp_path / "text.mp4", 4, 2, 16)


def test_two_manifests_are_the_sets_of_a_probe(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name, brightness in (("dark", 0), ("light", 120)):
            write_video(tmp_path / part / name / "v.mp4", brightness=brightness)
        write_manifest(tmp_path / part, tmp_path / f"{part}.csv")
    splits = manifest_splits(tmp_path / "train.csv", tmp_path / "val.csv", 4, 1, 16)
    assert splits.classes == ["0", "1"] and splits.test is None
    assert splits.selection.labels.tolist() == [0, 1]
    assert splits.selection.read(1).float().mean() > splits.selection.read(0).float().mean() + 60
    assert len(manifest_splits(tmp_path / "train.csv", tmp_path / "val.csv", 4, 1, 16, limit=1).training) == 1
