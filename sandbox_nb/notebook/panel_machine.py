"""The panel's machine: started, changed and stopped on its own loop, so that no call-back of a page waits."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sandbox_nb.background import Call
from sandbox_nb.blocking import Sandbox
from sandbox_nb.devices import Device
from sandbox_nb.errors import SandboxError
from sandbox_nb.hardware import AttachedDevice
from sandbox_nb.life import State
from sandbox_nb.options import Options
from sandbox_nb.plan import command_line

INTERVAL = 0.5
"""Seconds from one look at the machine's state to the next: cells change it too."""

PROGRESS_INTERVAL = 0.2
"""Seconds between two words on how far a start is."""

T = TypeVar("T")
Told = Callable[[str], None]


class PanelMachine:
    """What a panel does with its sandbox. All is said through ``tell``, on another thread than the caller's.

    ``tell`` takes a line for people, empty when there is nothing to say any more.
    """

    def __init__(self, sandbox: Sandbox, tell: Told) -> None:
        self.sandbox = sandbox
        self._tell = tell
        self._planning: Call[None] | None = None
        self._told = 0.0

    @property
    def state(self) -> State:
        """Where the machine is in its life."""
        return self.sandbox.state

    def follow(self, look: Callable[[], bool]) -> None:
        """Call ``look`` again and again, until it says False."""

        async def following() -> None:
            while look():  # noqa: ASYNC110 - the machine has no event for a change of its state
                await asyncio.sleep(INTERVAL)

        self.sandbox.runner.submit(following())

    def start(self, options: Options, done: Callable[[], None]) -> None:
        """Start it; ``done`` is called when it runs."""
        self._tell("starting …")
        self._when_done(self.sandbox.begin_start(options, progress=self._progress), lambda _: done())

    def stop(self) -> None:
        """Stop it, or take back a start that is under way, whoever has asked for it."""
        self._tell("taking the start back …" if self.state is State.STARTING else "stopping …")
        self._submit(self.sandbox.asynchronous.close(), lambda _: None)

    def attach(self, device: Device, done: Callable[[AttachedDevice], None], failed: Told) -> None:
        """Attach a device to the machine that runs."""
        self._submit(self.sandbox.asynchronous.attach(device), done, failed)

    def detach(self, name: str, done: Callable[[None], None], failed: Told) -> None:
        """Detach a device by its name."""
        self._submit(self.sandbox.asynchronous.detach(name), done, failed)

    def plan(self, options: Options, done: Callable[[list[str]], None], failed: Told) -> None:
        """Find QEMU's command line; what was looked for before is given up."""
        if self._planning is not None:
            self._planning.cancel()

        async def planning() -> None:
            await asyncio.sleep(INTERVAL)  # more may be typed
            try:
                done(await command_line(options))
            except SandboxError as error:
                failed(str(error))

        self._planning = self.sandbox.runner.submit(planning())

    def device_names(self) -> set[str]:
        """The names of what is attached now."""
        return {device.name for device in self.sandbox.portrait().devices}

    def _submit(self, work: Coroutine[Any, Any, T], done: Callable[[T], None], failed: Told | None = None) -> None:
        self._when_done(self.sandbox.runner.submit(work), done, failed)

    def _when_done(self, call: Call[T], done: Callable[[T], None], failed: Told | None = None) -> None:
        def ended(_: object) -> None:
            try:
                result = call.future.result()
            except SandboxError as error:
                (failed or self._tell)(str(error))
            except asyncio.CancelledError:
                self._tell("")
            else:
                self._tell("")
                with contextlib.suppress(SandboxError):  # it has ended since
                    done(result)

        call.future.add_done_callback(ended)

    def _progress(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told > PROGRESS_INTERVAL:
            self._told = now
            self._tell(f"{stage} {100 * done // total} %" if total else f"{stage} …")
