"""Coroutines for callers that do not await: on an event loop in a thread of its own, or on one they name.

All blocking sandboxes of a process live on one loop, the background's. So a call is safe in a notebook, whose own
loop is running, as in a script, a thread or a call-back; and a call that blocks does not keep the other machines
from being looked after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from sandbox_nb.errors import FailedPrecondition

__all__ = ["BACKGROUND", "Call", "Runner", "run_blocking"]

T = TypeVar("T")

Piece = tuple[int, bytes]


class Call(Generic[T]):
    """Work under way on a loop, and the Future of its result for the thread that waits.

    Not ``run_coroutine_threadsafe``: its Future counts as done the moment it is cancelled, while the work is still
    cleaning up after itself.
    """

    def __init__(self, work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        self.future: Future[T] = Future()
        self._loop = loop
        self._task: asyncio.Task[T] | None = None
        loop.call_soon_threadsafe(self._begin, work)

    def cancel(self) -> None:
        """Cancel the work, which goes on until it has cleaned up. From any thread; idempotent."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _begin(self, work: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(work)
        self._task.add_done_callback(self._done)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _done(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.future.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())


class Runner:
    """Runs coroutines on an event loop for callers in other threads."""

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running."""
        raise NotImplementedError

    def submit(self, work: Coroutine[Any, Any, T]) -> Call[T]:
        """Start ``work`` and return at once."""
        return Call(work, self.loop())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` and return its result.

        An interrupt (Ctrl-C, the notebook's stop button) cancels the work, waits until it has cleaned up after
        itself, and goes on. Raises FailedPrecondition on the loop itself, where waiting would never end.
        """
        self.check_caller(work)
        call = self.submit(work)
        try:
            return self.result(call)
        except BaseException:
            self._abandon(call)
            raise

    def wait_telling(
        self,
        begin: Callable[[Callable[[int, bytes], Awaitable[None]]], Coroutine[Any, Any, T]],
        sink: Callable[[int, bytes], object],
    ) -> T:
        """Run what ``begin`` makes of a sink for the loop; call ``sink`` in this thread for each piece it gets.

        The loop's side waits until a piece was taken: a slow ``sink`` slows the work instead of filling memory.
        """
        loop = self.loop()
        pieces: queue.SimpleQueue[tuple[Piece, asyncio.Future[None]] | None] = queue.SimpleQueue()

        async def hand_over(number: int, data: bytes) -> None:
            taken = loop.create_future()
            pieces.put(((number, data), taken))
            await taken

        work = begin(hand_over)
        self.check_caller(work)
        call = self.submit(work)
        call.future.add_done_callback(lambda _: pieces.put(None))
        try:
            while (waiting := pieces.get()) is not None:
                piece, taken = waiting
                sink(*piece)
                loop.call_soon_threadsafe(_resolve, taken)
            return call.future.result()
        except BaseException:
            self._abandon(call)
            raise

    def result(self, call: Call[T], timeout: float | None = None) -> T:
        """Wait for the end of ``call``, which goes on when the wait is over before. Raises TimeoutError."""
        return call.future.result(timeout)

    def check_caller(self, work: Coroutine[Any, Any, Any]) -> None:
        """Raise FailedPrecondition, and do no work, for a caller who cannot wait: one on the loop itself."""
        with contextlib.suppress(RuntimeError):
            if asyncio.get_running_loop() is self.loop():
                work.close()
                raise FailedPrecondition("a blocking call on sandbox_nb's own event loop; use AsyncSandbox there")

    def _abandon(self, call: Call[Any]) -> None:
        if not call.future.done():
            call.cancel()
            with contextlib.suppress(BaseException):
                self.result(call)


class Background(Runner):
    """The loop in a daemon thread, started when it is first needed."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        """Begin anew. A forked child has the loop without its thread, and the lock as whoever held it."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="sandbox_nb", daemon=True).start()
            return self._loop


BACKGROUND = Background()
os.register_at_fork(after_in_child=BACKGROUND._forget)


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` on the background loop and return its result; see ``Runner.wait``."""
    return BACKGROUND.wait(work)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
