"""Looking at a machine again and again, as long as somebody looks at what it tells."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import Callable

from sandbox_nb.background import Call
from sandbox_nb.blocking import Sandbox
from sandbox_nb.errors import SandboxError
from sandbox_nb.life import State
from sandbox_nb.notebook.dashboard_view import HISTORY, Seen
from sandbox_nb.stats import Rates, Stats, rates

INTERVAL = 2.0
"""Seconds from one look to the next. One takes an emulated guest some 8 ms."""

LEASE = 6.0
"""Seconds that a page's word, that it shows the dashboard, is good for."""


class Watch:
    """Tells what ``sandbox`` is like while it is looked at; asks nothing of the guest while it is not.

    ``tell`` is called on the sandbox's loop.
    """

    def __init__(self, sandbox: Sandbox, tell: Callable[[Seen], None]) -> None:
        self._sandbox = sandbox
        self._tell = tell
        self._history: deque[tuple[Rates, Stats]] = deque(maxlen=HISTORY)
        self._before: Stats | None = None
        self._asked_to_end: set[int] = set()
        self._until = 0.0
        self._looking: Call[None] | None = None
        self._sooner = asyncio.Event()

    def look(self) -> None:
        """Somebody looks, and will for a while. In any thread."""
        self._sandbox.runner.loop().call_soon_threadsafe(self._look)

    def end_process(self, pid: int) -> None:
        """Ask a process of the guest to end; the second time, end it. In any thread."""
        self._sandbox.runner.submit(self._end_process(pid))

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._until = loop.time() + LEASE
        if self._looking is None or self._looking.future.done():
            self._looking = self._sandbox.runner.submit(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self._before = None
        while loop.time() < self._until:
            self._tell(await self._seen())
            self._sooner.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._sooner.wait(), INTERVAL)

    async def _seen(self) -> Seen:
        machine = self._sandbox.asynchronous
        if machine.state is not State.RUNNING:
            self._before = None
            self._history.clear()
            return Seen(machine.portrait())
        try:
            stats = await machine.stats(processes=True)
            connections = await machine.connections()
        except SandboxError:  # it has just ended; the portrait says so
            return Seen(machine.portrait())
        if self._before is not None and stats.uptime > self._before.uptime:
            self._history.append((rates(self._before, stats), stats))
        self._before = stats
        self._asked_to_end &= {process.pid for process in stats.processes}
        return Seen(machine.portrait(), stats, tuple(self._history), connections, frozenset(self._asked_to_end))

    async def _end_process(self, pid: int) -> None:
        number = signal.SIGKILL if pid in self._asked_to_end else signal.SIGTERM
        self._asked_to_end.add(pid)
        # It, or the machine, may have ended meanwhile. kill is the shell's own: any image with a shell has it.
        with contextlib.suppress(SandboxError):
            await self._sandbox.asynchronous.run(f"kill -{number.value} {pid}")
        self._sooner.set()
