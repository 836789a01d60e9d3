"""The loop of the notebook itself, for a sandbox that lives on it and is handed to a magic."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import nest_asyncio2

from sandbox_nb.background import Call, Runner
from sandbox_nb.errors import FailedPrecondition

T = TypeVar("T")


class LoopRunner(Runner):
    """Runs coroutines on a loop of the user's, also for a caller that the loop itself has called.

    That is a cell: it blocks the loop, and the sandbox it waits for lives on that loop. Only running the loop
    again, inside itself, lets it go on. asyncio does not have that; nest_asyncio2 patches it in, for the whole
    process. So this is the one place that does, and only when such a sandbox is used: all others live on the
    background's loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop."""
        return self._loop

    def check_caller(self, work: Coroutine[Any, Any, Any]) -> None:
        """Raise FailedPrecondition when the loop is closed. A caller on the loop itself is what this is for."""
        if self._loop.is_closed():
            work.close()
            raise FailedPrecondition("the event loop of this sandbox is closed, and so is the way to the machine")

    def result(self, call: Call[T], timeout: float | None = None) -> T:
        """Wait for the end of ``call``, which goes on when the wait is over before. Raises TimeoutError."""
        if self._is_elsewhere:
            return super().result(call, timeout)
        done = asyncio.wait_for(asyncio.shield(asyncio.wrap_future(call.future, loop=self._loop)), timeout)
        if self._loop.is_running():
            try:
                nest_asyncio2.apply(self._loop)
            except ValueError as error:
                raise FailedPrecondition(f"a magic cannot wait on this event loop: {error}") from error
        return self._loop.run_until_complete(done)

    def wait_telling(
        self,
        begin: Callable[[Callable[[int, bytes], Awaitable[None]]], Coroutine[Any, Any, T]],
        sink: Callable[[int, bytes], object],
    ) -> T:
        """Run what ``begin`` makes of ``sink``, which is called in this thread for each piece."""
        if self._is_elsewhere:
            return super().wait_telling(begin, sink)

        async def take(number: int, data: bytes) -> None:
            sink(number, data)

        return self.wait(begin(take))

    @property
    def _is_elsewhere(self) -> bool:
        """Whether the loop runs, in another thread than the caller's."""
        try:
            return asyncio.get_running_loop() is not self._loop
        except RuntimeError:
            return self._loop.is_running()
