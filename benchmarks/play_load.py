"""Many pages play at once: whether each gets its frames, how soon, and what memory the server takes.

    python benchmarks/play_load.py --run runs/demo --sessions 50 --seconds 60 --json out.json

Starts `genie-cpp play` as a process of its own and connects to it as many pages would: each holds a key, so
that it asks for the next frame when it has the last one, at most as often as the recording's frames a second;
now and then it changes the key, undoes, asks for previews or an episode, sets the steps, starts again or
saves a GIF. A session is lost when its connection ends, an answer does not come within a minute, is another
than the one asked for, or is an error. Resident memory is the server's: before, after a sixth of the time, at
the end, and when all have gone. Without --run, a tiny model with random weights plays a synthetic
world.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
from websockets.asyncio.client import connect

from genie_cpp import _C
from genie_cpp.models import Genie
from genie_cpp.play import protocol

STACK = {"depth": 1, "dim": 32, "heads": 2}
TINY = {
    "data": {"num_frames": 8, "height": 16, "width": 16},
    "tokenizer": {
        "patch_size": 4,
        "initialization": "random",
        "quantizer": {"num_codes": 64, "code_dim": 8},
        "encoder": STACK,
        "decoder": STACK,
    },
    "latent_action": {"patch_size": 8, "encoder": STACK, "decoder": STACK},
    "dynamics": {"transformer": STACK},
    "inference": {"steps": 2, "temperature": 1},
}


def make_tiny(folder: Path) -> tuple[Path, Path]:
    """A run directory with random weights, and a recording."""
    from genie_cpp.config_values import as_config

    torch.manual_seed(0)
    run, data = folder / "run", folder / "world.h5"
    _C.write_synthetic_world(str(data), 480, 16, 16, 60, 0)
    Genie(as_config(TINY)).save_pretrained(run)
    return run, data


@contextmanager
def serving(run: Path, data: Path | None, sessions: int) -> Iterator[tuple[str, int]]:
    """The address of a server's socket, and its process id."""
    command = [sys.executable, "-m", "genie_cpp.cli", "play", run, "--port", 0, "--no-browser"]
    command += ["--max-sessions", sessions, *(["--data", data] if data else [])]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            raise SystemExit(f"the server did not start: {line}")
        yield f"ws://{line.split('http://')[1].split('/')[0]}/socket", process.pid
    finally:
        process.terminate()
        process.wait()


def resident(process: int, field: str = "VmRSS") -> float:
    """MiB of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


class Page:
    """One page that plays; `lost` says what went wrong, if something did."""

    def __init__(self, number: int) -> None:
        self.number, self.random = number, random.Random(number)
        self.lost: str | None = None
        self.delays: list[float] = []

    async def begin(self, address: str) -> None:
        """Connects and starts a play."""
        try:
            self._socket = await connect(address, max_size=None, compression=None)
            self._hello = hello = await self._json("hello")
            self._settings = {"steps": hello["steps"], "temperature": hello["temperature"]}
            prompt = hello["prompts"][self.number % len(hello["prompts"])]
            self._start = {
                "type": "start",
                "prompt": prompt,
                "seed": self.number,
                "tape": [],
            } | self._settings
            await self._send(self._start)
            await self._json("started")
        except Exception as error:
            self.lost = f"{type(error).__name__}: {error}"

    async def play(self, end: float) -> None:
        """Plays until `end`, one frame at least, and leaves."""
        if self.lost:
            return
        try:
            await self._play(end)
            await self._socket.close()
        except Exception as error:
            self.lost = f"{type(error).__name__}: {error}"

    async def _play(self, end: float) -> None:
        frame, action = 0, 0
        while not self.delays or time.monotonic() < end:
            begin = time.monotonic()
            await self._send({"type": "step", "action": action})
            frame += 1
            await self._frame(frame)
            self.delays.append(time.monotonic() - begin)
            choice = self.random.random()
            if choice < 0.2:
                action = self.random.randrange(self._hello["num_actions"])
            elif choice < 0.24:
                await self._send({"type": "undo", "count": 1})
                frame -= 1
                await self._frame(frame)
            elif choice < 0.27:
                await self._send({"type": "previews", "length": 4})  # the next step takes it back
            elif choice < 0.29:
                await self._send({"type": "episode", "episode": 0, "begin": 0})
                await self._json("episode")
            elif choice < 0.31:
                await self._send({"type": "configure"} | self._settings)
            elif choice < 0.32:
                await self._send(self._start)
                await self._json("started")
                frame = 0
            elif choice < 0.325:
                await self._send({"type": "record", "format": "gif", "fps": 10})
                await self._json("file")
            await asyncio.sleep(max(0.0, begin + 1 / self._hello["fps"] - time.monotonic()))

    async def _send(self, message: dict[str, Any]) -> None:
        await self._socket.send(json.dumps(message))

    async def _next(self) -> Any:
        message = await asyncio.wait_for(self._socket.recv(), 60)
        if isinstance(message, bytes):
            return message
        fields = json.loads(message)
        if fields["type"] == "error":
            raise RuntimeError(fields["message"])
        return fields

    async def _json(self, kind: str) -> dict[str, Any]:
        while True:
            message = await self._next()
            if not isinstance(message, bytes) and message["type"] == kind:
                return message

    async def _frame(self, number: int) -> None:
        """Waits for the play's next frame, which has to be this one."""
        while True:
            message = await self._next()
            if isinstance(message, bytes) and message[0] == protocol.FRAME:
                came = protocol.HEADER.unpack(message[: protocol.HEADER.size])[5]
                if came != number:
                    raise RuntimeError(f"frame {number} was due, {came} came")
                return


async def load(address: str, process: int, sessions: int, seconds: float) -> dict[str, Any]:
    before = resident(process)
    pages = [Page(number) for number in range(sessions)]
    begin = time.monotonic()
    await asyncio.gather(*(page.begin(address) for page in pages))
    started = time.monotonic()
    playing = asyncio.gather(*(page.play(started + seconds) for page in pages))
    await asyncio.sleep(seconds / 6)
    early = resident(process)
    await asyncio.sleep(max(0.0, started + seconds - 0.2 - time.monotonic()))
    late = resident(process)
    await playing
    taken = time.monotonic() - started
    await asyncio.sleep(1)
    for page in pages:
        if page.lost:
            print(f"session {page.number} was lost: {page.lost}", file=sys.stderr)
    delays = np.array([delay for page in pages for delay in page.delays] or [np.nan])
    counts = [len(page.delays) for page in pages]
    return {
        "sessions": sessions,
        "starting_s": started - begin,
        "seconds": taken,
        "lost": sum(page.lost is not None for page in pages),
        "frames": sum(counts),
        "frames_per_second": sum(counts) / taken,
        "fewest": min(counts),
        "most": max(counts),
        "median_ms": 1000 * float(np.median(delays)),
        "p99_ms": 1000 * float(np.quantile(delays, 0.99)),
        "start_MiB": before,
        "early_MiB": early,
        "late_MiB": late,
        "left_MiB": resident(process),
        "peak_MiB": resident(process, "VmHWM"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="run directory of a trained model; default: a tiny one")
    parser.add_argument("--data", type=Path, help="recording; default: the run's own")
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", type=Path, help="write the figures and the environment here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, data = (args.run, args.data) if args.run else make_tiny(Path(folder))
        with serving(run, data, args.sessions) as (address, process):
            row = asyncio.run(load(address, process, args.sessions, args.seconds))
    measure.report([row], args.json)
    sys.exit(1 if row["lost"] else 0)


if __name__ == "__main__":
    main()
