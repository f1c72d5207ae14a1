"""Turns at the model: one thread computes, and no page waits for more than one job of each other page."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class _Ring:
    """Jobs in the order they came for each owner; owners take turns."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[Hashable, deque[_Job]] = OrderedDict()

    def add(self, owner: Hashable, job: _Job) -> None:
        self._jobs.setdefault(owner, deque()).append(job)

    def next(self) -> _Job | None:
        """The next owner's first job that nobody has cancelled; the owner then goes to the end."""
        while self._jobs:
            owner, jobs = self._jobs.popitem(last=False)
            while jobs and jobs[0][1].done():
                jobs.popleft()
            if not jobs:
                continue
            job = jobs.popleft()
            if jobs:
                self._jobs[owner] = jobs
            return job
        return None


class FairQueue:
    """Runs blocking jobs one after the other in a thread of its own, so that the event loop stays free.

    Owners take turns. Background jobs run only where no other job waits. One thread is enough, since a
    job of the model computes on all cores; it also means that two jobs never touch a session at the same
    time.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="genie-play")
        self._foreground, self._background = _Ring(), _Ring()
        self._running: asyncio.Task[None] | None = None

    async def run(self, owner: Hashable, function: Callable[[], T], background: bool = False) -> T:
        """The function's result, or its exception. Cancelling before the job's turn drops the job."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        (self._background if background else self._foreground).add(owner, (function, future))
        if self._running is None:
            self._running = asyncio.create_task(self._work())
        return await future

    def close(self) -> None:
        """Drops what waits; a job that runs is not interrupted."""
        self._foreground, self._background = _Ring(), _Ring()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while job := self._foreground.next() or self._background.next():
                function, future = job
                try:
                    result = await loop.run_in_executor(self._thread, function)
                except Exception as error:
                    if not future.done():
                        future.set_exception(error)
                else:
                    if not future.done():
                        future.set_result(result)
                # Whoever waited gets a chance to ask for more before the next job is chosen.
                await asyncio.sleep(0)
        finally:
            self._running = None
