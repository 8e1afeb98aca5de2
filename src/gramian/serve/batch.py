"""Top-n lists of known users: requests that come while others are computed are computed together.

One matrix product for many users reads the item factors once for all of them. What waits is bounded, so the memory is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar, TypeVarTuple

from gramian.serve.problems import overloaded

__all__ = ["Batcher", "Workers"]

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Batcher(Generic[Asked, Answered]):
    """Collects what is asked while the one before is computed.

    Args:
        compute: Maps a list of what was asked to the list of answers, in a thread.
        executor: Where it runs; one thread is enough.
        most: How many are computed at once, at most.
        waiting: How many may wait; more are refused.
    """

    def __init__(
        self, compute: Callable[[list[Asked]], list[Answered]], executor: Executor, most: int, waiting: int
    ) -> None:
        self._compute, self._executor, self._most, self._limit = compute, executor, most, waiting
        self._waiting: list[tuple[Asked, asyncio.Future[Answered]]] = []
        self._busy = False

    async def ask(self, asked: Asked) -> Answered:
        """The answer to one."""
        if len(self._waiting) >= self._limit:
            raise overloaded()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        self._waiting.append((asked, future))
        if not self._busy:
            self._start(loop)
        return await future

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        part, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        part = [(asked, future) for asked, future in part if not future.done()]  # its client may have gone
        self._busy = bool(part)
        if part:
            job = loop.run_in_executor(self._executor, self._compute, [asked for asked, _ in part])
            job.add_done_callback(lambda done: self._finish(loop, part, done))

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        part: list[tuple[Asked, asyncio.Future[Answered]]],
        done: asyncio.Future[list[Answered]],
    ) -> None:
        error = done.exception()
        for place, (_, future) in enumerate(part):
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result()[place])
        self._start(loop)


class Workers:
    """Runs functions in a few threads; what waits for one is bounded.

    Args:
        executor: The threads.
        waiting: How many calls may run or wait; more are refused.
    """

    def __init__(self, executor: Executor, waiting: int) -> None:
        self._executor, self._limit, self._count = executor, waiting, 0

    async def run(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """The result of a call in a thread."""
        if self._count >= self._limit:
            raise overloaded()
        self._count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
        finally:
            self._count -= 1
