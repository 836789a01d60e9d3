"""The life of one sandbox: its states, what takes it from one to the next, and why it ended."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from sandbox_nb import limits
from sandbox_nb.deadline import check_timeout, deadline
from sandbox_nb.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    SandboxError,
    Stopped,
    Unavailable,
)
from sandbox_nb.guest.proto.power_ttrpc import PowerClient
from sandbox_nb.host import Progress, check_progress
from sandbox_nb.launch import Running, launch
from sandbox_nb.options import Option, Options
from sandbox_nb.together import to_its_end

__all__ = ["POWER_OFF_TIMEOUT", "Life", "State"]

logger = logging.getLogger(__name__)

POWER_OFF_TIMEOUT = 3.0
"""Seconds the guest gets to end its processes, write back and power itself off before QEMU is ended."""

CONSOLE_LINES = 200
"""Lines of the console that are told of a machine."""


class State(enum.Enum):
    """Where a sandbox is in its life."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


_TAKEN_BACK = "it was taken back"

# The states each verb is legal in. A verb in any other raises FailedPrecondition and changes nothing.
_LEGAL = {
    "start": {State.NEW, State.STOPPED, State.FAILED},
    "stop": {State.RUNNING, State.FAILED},
    "use": {State.RUNNING},
}


class Life:
    """The state machine of one sandbox, over as many starts as there are.

    ``running`` is its machine, also one that has failed, until it is cleaned up; ``failure`` is why it failed or
    was stopped for a limit, ``stopped`` what calls that were under way at a stop end with, ``loop`` the event loop
    it was started in.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", name):
            raise InvalidArgument(f"name={name!r}: letters, digits and inner hyphens are needed, 63 at most")
        self.name = name
        self.state = State.NEW
        self.options = Options()
        self.running: Running | None = None
        self.failure: Unavailable | None = None
        self.stopped: Stopped | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._start_error = ""
        self._starting: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        """Set when the last stop is over."""
        self._before_end: list[Callable[[], Awaitable[None]]] = []
        self._usage: limits.Usage | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._limiter: asyncio.Task[None] | None = None

    def before_end(self, end: Callable[[], Awaitable[None]]) -> None:
        """Have ``end`` awaited whenever a machine is about to end, to end what stands on it."""
        self._before_end.append(end)

    def started(self) -> Running:
        """The machine, also one that has failed. Raises FailedPrecondition when there is none."""
        if self.running is None:
            begun = (
                "has not been started" if self.state is State.NEW else f"has no machine, it is {self.state.value}"
            )
            raise FailedPrecondition(f"{self.name} {begun}")
        return self.running

    @property
    def console(self) -> str:
        """The last lines of the guest's console."""
        return self.running.machine.console.ring.tail(CONSOLE_LINES) if self.running is not None else ""

    # From one state to the next

    async def start(
        self,
        options: Sequence[Option],
        keywords: Mapping[str, Any],
        *,
        timeout: float | None,
        progress: Progress | None,
    ) -> None:
        """Start a machine, within ``timeout`` seconds. See AsyncSandbox.start."""
        self.require("start")
        check_timeout(timeout)
        check_progress(progress)
        wanted = Options().applying(options, keywords)
        self.state, self.failure, self.stopped = State.STARTING, None, None
        self.loop = asyncio.get_running_loop()
        self._starting = asyncio.create_task(self._start(wanted, timeout, progress), name=f"start-{self.name}")
        before = _cancellations()
        try:
            await asyncio.shield(self._starting)
        except asyncio.CancelledError:
            if self._starting.cancelled() and _cancellations() == before:
                raise Stopped(f"{self.name} was stopped while it started") from None
            await self._take_back(self._starting)
            if self.state is State.RUNNING:  # it was there the moment it was not wanted any more
                await self.stop(POWER_OFF_TIMEOUT)
            raise
        finally:
            self._starting = None

    async def _start(self, wanted: Options, timeout: float | None, progress: Progress | None) -> None:
        """A task of its own, which is cancelled once at most: more would cut its cleaning up short."""
        try:
            if self.running is not None:  # what is left of a machine that failed
                await self._clean_up()
            async with deadline(timeout, lambda: DeadlineExceeded(f"start did not finish within {timeout} s")):
                running = await launch(wanted, hostname=self.name, progress=progress)
        except BaseException as error:
            self.state, self._start_error = State.FAILED, str(error) or type(error).__name__
            raise
        self.begin(running, wanted)

    def begin(self, running: Running, options: Options) -> None:
        """Run, and watch over, a machine that was launched."""
        self.running, self.options = running, options
        self.state = State.RUNNING
        self._usage = limits.Usage()
        if options.idle_timeout is not None or options.max_lifetime is not None:
            self._limiter = asyncio.create_task(self._limit(self._usage), name=f"limit-{self.name}")
        self._watcher = asyncio.create_task(self._watch(running), name=f"watch-{self.name}")

    async def stop(self, timeout: float) -> None:
        """Power the guest off, and end it by force when it has not within ``timeout`` seconds."""
        self.require("stop")
        check_timeout(timeout)
        self._check_loop()
        await self._stop(f"{self.name} was stopped", timeout)

    async def end(self) -> None:
        """Stop the machine if there is one; take back a start that is under way, wait for a stop that is."""
        before = _cancellations()
        if self.state in (State.STARTING, State.STOPPING):
            self._check_loop()
        if self._starting is not None:
            await self._take_back(self._starting)
        if self.state is State.STOPPING:
            await self._over.wait()
        if self.state in _LEGAL["stop"]:
            await self.stop(POWER_OFF_TIMEOUT)
        if _cancellations() > before:  # while a start was taken back, which went to its end
            raise asyncio.CancelledError

    async def _take_back(self, starting: asyncio.Task[None]) -> None:
        if not starting.cancelling():
            starting.cancel(_TAKEN_BACK)
        await to_its_end(starting)
        if self.state is State.STARTING:  # it had not even begun
            self.state, self._start_error = State.FAILED, _TAKEN_BACK

    # While it runs

    def require(self, verb: str) -> None:
        """Raise FailedPrecondition in a state that ``verb`` (start, stop, use) is not legal in."""
        legal = _LEGAL[verb]
        if self.state not in legal:
            needed = " or ".join(sorted(state.value for state in legal))
            what = "this" if verb == "use" else verb
            raise FailedPrecondition(f"{self.name} is {self.state.value}{self._why()}; {what} needs it {needed}")

    def _why(self) -> str:
        """What has brought it into its state, where that was not asked for."""
        if self.failure is not None:
            return f" ({self.failure})"
        if self.state is State.FAILED:
            return f" (its start ended with: {self._start_error.splitlines()[0]})"
        return ""

    def current(self) -> Running:
        """The machine as it runs. Raises why it failed, or FailedPrecondition unless running."""
        if self.state is State.FAILED and self.failure is not None:
            raise self.failure
        self.require("use")
        self._check_loop()
        assert self.running is not None
        return self.running

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Running]:
        """The machine as it runs, for a block that is one use of it (see ``explained``)."""
        running = self.current()
        async with self.explained():
            yield running

    def use_until(self, when_ended: Callable[[Callable[[], None]], None]) -> None:
        """Count one use of the machine, until what ``when_ended`` is given is called."""
        assert self._usage is not None
        self._usage.begin()
        when_ended(self._usage.end)

    @contextlib.asynccontextmanager
    async def explained(self) -> AsyncIterator[None]:
        """One use of the machine, explained when the way to the guest ends under it."""
        assert self._usage is not None
        with self._usage.use():
            async with self.observed():
                yield

    @contextlib.asynccontextmanager
    async def observed(self) -> AsyncIterator[None]:
        """When the way to the guest ends under a call, raise what the watcher found out, not what the call saw."""
        watcher, stopped = self._watcher, self.stopped
        try:
            yield
        except SandboxError as error:
            unavailable = isinstance(error, Unavailable)
            if self.stopped is not None and (unavailable or self.stopped is not stopped):
                raise self.stopped from error
            if not unavailable:
                raise
            if watcher is not None and self.failure is None:
                await asyncio.wait({watcher}, timeout=1.0)
            if self.failure is not None and error is not self.failure:
                raise self.failure from error
            raise

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self.loop:
            raise FailedPrecondition(
                f"{self.name} belongs to the event loop it was started in, which is another one; "
                "a Sandbox serves them all, and threads"
            )

    # What ends it unasked

    async def _watch(self, running: Running) -> None:
        self.failure = await running.wait_gone()
        self._lift_limits()
        self.state = State.FAILED
        # Every call in flight ends now, with the client, and so does who is attached to the console; then every
        # stream, with the machine.
        running.machine.console.hang_up()
        await running.client.aclose()
        await running.machine.close()

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _limit(self, usage: limits.Usage) -> None:
        """Stop the machine when one of its limits is reached."""
        why = await limits.reached(usage, self.options.idle_timeout, self.options.max_lifetime)
        logger.warning("%s is stopped: %s", self.name, why)
        await self._stop(f"{self.name} was stopped: {why}", POWER_OFF_TIMEOUT, is_failure=True)

    def _lift_limits(self) -> None:
        if self._limiter is not None and self._limiter is not asyncio.current_task():
            self._limiter.cancel()
            self._limiter = None

    # Its end

    async def _stop(self, why: str, timeout: float, *, is_failure: bool = False) -> None:
        graceful = self.state is State.RUNNING
        self.state, self.stopped = State.STOPPING, Stopped(why)
        self._over = asyncio.Event()
        self._lift_limits()
        try:
            if graceful:
                await self._power_off(timeout)
        finally:
            await asyncio.shield(self._finish_stop(is_failure))

    async def _power_off(self, timeout: float) -> None:
        running = self.running
        assert running is not None
        self._stop_watching()
        # Whatever a guest answers, or does not, it is ended by force next.
        with contextlib.suppress(SandboxError, TimeoutError):
            async with asyncio.timeout(timeout):
                await PowerClient(running.client).off()
                # The agent hangs up once all is written and unmounted. The guest's kernel would take its devices
                # down now, one by one and for nobody.
                await running.client.wait_closed()

    async def _finish_stop(self, is_failure: bool) -> None:
        # One piece of work that goes on when the stop is cancelled, so that the state never stays STOPPING.
        try:
            await self._clean_up()
        finally:
            self.state = State.STOPPED
            if is_failure:
                self.failure = self.stopped
            self._over.set()

    async def _clean_up(self) -> None:
        self._stop_watching()
        running, self.running = self.running, None
        try:
            for end in self._before_end:
                await end()
        finally:
            if running is not None:
                await running.close()


def _cancellations() -> int:
    """How often the task that asks was cancelled, and has not taken that as done."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
