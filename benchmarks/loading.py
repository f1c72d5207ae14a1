"""The loader: clips in random order from plain and from gzip-compressed HDF5, ours beside torch's DataLoader
over h5py with as many workers, and beside what a training step of the tokenizer eats.

The files hold the built-in synthetic world as our writer makes it (gzip), and the same frames without
compression. They are larger than what the loader may keep of decoded chunks (64 MiB), and lie in the
system's page cache: what is measured is reading, decoding and collating, not the disk. "early" and "late"
are what a process grows by over the first tenth of its batches and over all of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import measure
import plain
import torch
import training_step
from torch.utils.data import DataLoader, Dataset, RandomSampler

from genie_cpp import _C
from genie_cpp.config_values import as_config
from genie_cpp.training import keep_freed_memory

WORKERS = 2
AIM = 0.1  # training eats at most such a share of what the loader gives


def write_files(folder: Path, frames: int, size: int) -> dict[str, Path]:
    files = {"gzip": folder / "gzip.h5", "plain": folder / "plain.h5"}
    _C.write_synthetic_world(str(files["gzip"]), frames, size, size, 64, 0)
    with h5py.File(files["gzip"]) as source, h5py.File(files["plain"], "w") as copy:
        for name in source:
            copy.create_dataset(name, data=source[name][:])
        copy.attrs.update(source.attrs)
    return files


def clip_dataset(path: Path, s: plain.Sizes) -> _C.ClipDataset:
    config = {"data": {"num_frames": s.frames, "height": s.size, "width": s.size}}
    return _C.ClipDataset(_C.VideoFile(str(path)), as_config(config), "all")


def our_loader(path: Path, s: plain.Sizes) -> _C.Loader:
    return _C.Loader(clip_dataset(path, s), batch_size=s.batch, num_workers=WORKERS)


class PlainClips(Dataset):
    """The same clips by h5py; each worker opens the file for itself."""

    def __init__(self, path: Path, clips: _C.ClipDataset, frames: int) -> None:
        self.path, self.frames, self.file = path, frames, None
        self.starts = [clips.first_frame(i) for i in range(len(clips))]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.file is None:
            self.file = h5py.File(self.path)
        start = self.starts[index]
        return torch.from_numpy(self.file["frames"][start : start + self.frames])


def plain_batches(clips: PlainClips, batch: int) -> Iterator[torch.Tensor]:
    order = RandomSampler(clips, replacement=True, num_samples=10**9)
    return iter(DataLoader(clips, batch_size=batch, sampler=order, num_workers=WORKERS))


def taking(take: Callable[[], object], count: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            take()

    return run


def memory_mib(path: Path, s: plain.Sizes, batches: int) -> tuple[float, float]:
    """What a process grows by when it loads `batches` batches, and by ten times as many."""
    command = [sys.executable, __file__, "--memory-of", str(path), json.dumps([s.frames, s.size, s.batch])]
    out = subprocess.run([*command, str(batches)], check=True, stdout=subprocess.PIPE, text=True).stdout
    early, late = map(float, out.split())
    return early, late


def print_memory(path: str, sizes: str, batches: str) -> None:
    frames, size, batch = json.loads(sizes)
    s = plain.Sizes(frames=frames, size=size, batch=batch)
    measure.clear_high_water()
    before = measure.high_water_gib()
    loader = our_loader(Path(path), s)
    taking(loader.next, int(batches))()
    early = measure.high_water_gib()
    taking(loader.next, 9 * int(batches))()
    print(1024 * (early - before), 1024 * (measure.high_water_gib() - before))


def training_rate(s: plain.Sizes, rounds: int) -> float:
    """Frames a second that the tokenizer's training eats."""
    model, loss, *_ = training_step.make_case("tokenizer", s)
    step = training_step.stepper(model, loss, torch.float32)
    keep_freed_memory()
    seconds = measure.in_turns({"step": step}, rounds)["step"]
    keep_freed_memory(False)
    return s.batch * s.frames / seconds


def rows(s: plain.Sizes, recorded: int, batches: int, rounds: int) -> Iterator[measure.Row]:
    """From files of `recorded` frames, in calls of so many batches."""
    eaten = training_rate(s, max(1, rounds // 3))
    frames = batches * s.batch * s.frames
    with tempfile.TemporaryDirectory() as folder:
        for kind, path in write_files(Path(folder), recorded, s.size).items():
            ours_clips = clip_dataset(path, s)
            plain_clips = PlainClips(path, ours_clips, s.frames)
            middle = len(plain_clips) // 2
            assert torch.equal(ours_clips.get(middle)[0], PlainClips(path, ours_clips, s.frames)[middle])
            theirs = plain_batches(plain_clips, s.batch)  # its processes start before our threads
            next(theirs)
            loader = our_loader(path, s)
            time = measure.in_turns(
                {
                    "ours": taking(loader.next, batches),
                    "plain": taking(theirs.__next__, batches),
                },
                rounds,
            )
            del loader, theirs
            early, late = memory_mib(path, s, batches)
            rate = frames / time["ours"]
            yield measure.row(
                f"loader/{kind}",
                "uint8",
                time["ours"],
                time["plain"],
                None,
                **{
                    "ours_fps": rate,
                    "plain_fps": frames / time["plain"],
                    "training_fps": eaten,
                    "training/loader": eaten / rate,
                    "aim_reached": eaten / rate <= AIM,
                    "file_mib": path.stat().st_size / 2**20,
                    "early_mib": early,
                    "late_mib": late,
                },
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory-of", nargs=3, required=True, metavar=("FILE", "SIZES", "BATCHES"))
    print_memory(*parser.parse_args().memory_of)
