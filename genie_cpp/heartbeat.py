"""Which of the processes that train together is alive. A collective operation whose partner has gone fails
without naming it (Gloo) or waits for many minutes (NCCL); this finds out who it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Heartbeat", "Store"]

DONE = "done"
FAILED = "failed: "


class Store(Protocol):
    """What is used of torch.distributed.Store."""

    def set(self, key: str, value: str) -> None: ...

    def multi_get(self, keys: list[str]) -> list[bytes]: ...


class Heartbeat:
    """Counts up a key of its own in a store all processes see, and watches those of the others.

    `on_lost` is called, from another thread, with a sentence about the first process that was not heard of
    for `timeout` seconds; where the store can't be reached any more, that is whoever keeps it. Every process
    makes one, and all have called start() before any returns from it."""

    def __init__(
        self,
        store: Store,
        rank: int,
        world_size: int,
        timeout: float,
        on_lost: Callable[[str], None],
        store_keeper: str = "rank 0",
        interval: float = 0.5,
    ) -> None:
        self._store = store
        self._store_keeper = store_keeper
        self._key = f"genie/heartbeat/{rank}"
        self._others = [other for other in range(world_size) if other != rank]
        self._timeout = timeout
        self._interval = interval
        self._on_lost = on_lost
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._beats = 0
        self._heard = {other: (b"", time.monotonic()) for other in self._others}
        self._reached = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._store.set(self._key, "0")
        self._look()  # waits until all have begun
        self._thread.start()

    def stop(self) -> None:
        """This process is done; the others need not wait for it."""
        self._end(DONE)

    def fail(self, reason: str) -> None:
        """This process ends for a reason of its own, which the others will be told."""
        self._end(FAILED + reason)

    def find_lost(self, patience: float) -> str | None:
        """A sentence about the process that was lost, waiting up to `patience` seconds for it to show: one
        not heard of for half of that. None where all are alive."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if sentence := self._lost(patience / 2):
                return sentence
            time.sleep(self._interval / 4)
        return None

    def _run(self) -> None:
        while not self._wait():
            try:
                self._beats += 1
                with self._lock:
                    if not self._stop.is_set():
                        self._store.set(self._key, str(self._beats))
                self._look()
            except RuntimeError:  # the store is gone, as it is when the process that keeps it ends
                pass
            if sentence := self._lost(self._timeout):
                self._on_lost(sentence)
                return

    def _wait(self) -> bool:
        """One interval; True where it is time to end. Time that this process was stopped for itself (a job
        that was suspended) says nothing about the others."""
        begin = time.monotonic()
        stopped = self._stop.wait(self._interval)
        if (late := time.monotonic() - begin - self._interval) > self._timeout / 4:
            self._reached += late
            self._heard = {other: (value, when + late) for other, (value, when) in self._heard.items()}
        return stopped

    def _look(self) -> None:
        if not self._others:
            return
        values = self._store.multi_get([f"genie/heartbeat/{other}" for other in self._others])
        self._reached = time.monotonic()
        for other, value in zip(self._others, values, strict=True):
            if value != self._heard[other][0]:
                self._heard[other] = (value, self._reached)

    def _lost(self, silence: float) -> str | None:
        """Silent processes come first: those with reasons may have failed because of them."""
        now = time.monotonic()
        gone = "it was killed, or its machine is gone"
        if (since := now - self._reached) > silence:
            keeper = f"{self._store_keeper}, which keeps the store that the processes meet in,"
            return f"{keeper} was not heard of for {since:.0f} s; {gone}"
        heard = dict(self._heard)
        for other, (value, when) in heard.items():
            if not value.startswith((DONE.encode(), FAILED.encode())) and now - when > silence:
                return f"rank {other} was not heard of for {now - when:.0f} s; {gone}"
        for other, (value, when) in heard.items():
            if value.startswith(FAILED.encode()) and now - when > self._interval:
                return f"rank {other} ended with an error: {value.decode()[len(FAILED) :]}"
        return None

    def _end(self, word: str) -> None:
        with self._lock:
            self._stop.set()
            try:
                self._store.set(self._key, word)
            except RuntimeError:  # whoever kept the store has ended already
                pass
