"""From a plan to a machine whose agent has called: restored from its template, or booted.

Every step registers its undoing on one exit stack before the next begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from sandbox_nb import binaries, host, limits, link, rundir
from sandbox_nb.boot import Boot
from sandbox_nb.errors import CapReached, DeadlineExceeded, FailedPrecondition, Killed, Unavailable
from sandbox_nb.link import Link
from sandbox_nb.plan import Plan
from sandbox_nb.vm import caps, command, template, users
from sandbox_nb.vm.caps import Confinement
from sandbox_nb.vm.machine import Logs, Machine
from sandbox_nb.vm.template import Template
from sandbox_nb.vm.users import User

__all__ = ["ROOT_SERIAL", "Called", "bring_up", "ended_on_failure"]

logger = logging.getLogger(__name__)

RESTORED_TIMEOUT = 20.0
"""Seconds a restored machine gets to call; it takes a tenth of one. After that it is given up for a boot."""

TOLD_TIMEOUT = 1.0
"""Seconds between an unanswered call and the news of QEMU's end; it takes milliseconds."""

ROOT_SERIAL = "sandbox-root"

T = TypeVar("T")


class Closable(Protocol):
    """What can be ended."""

    async def close(self) -> None:
        """End it. Idempotent."""


@dataclass
class Called:
    """A machine whose agent has called, and what it stands on; ``close`` ends all of it."""

    machine: Machine
    link: Link
    control: socket.socket
    state_dir: Path
    confinement: Confinement
    _undo: AsyncExitStack

    @property
    def alive(self) -> bool:
        """Whether it can be used."""
        return self.machine.child.returncode is None and self.link.alive

    async def close(self) -> None:
        """End the machine and remove what it left. Idempotent."""
        await self._undo.aclose()


@dataclass(frozen=True)
class _Begun:
    """What is there before the machine is."""

    plan: Plan
    link: Link
    logs: Logs
    folder: Path
    user: User | None
    confinement: Confinement

    async def spawn(self, saved: Template | None = None) -> Machine:
        """A paused machine with nothing plugged."""
        await self.confinement.limit_memory(elsewhere=0 if saved is None else saved.ram_usage())
        return await Machine.spawn(
            self.plan.spec,
            guard=binaries.guard(),
            logs=self.logs,
            folder=self.folder,
            template=saved,
            user=self.user,
            confinement=self.confinement,
        )

    async def dialled(self, machine: Machine, boot: Boot, timeout: float) -> socket.socket:
        """Plug the way to the host and the root, let the machine run, and return the call of its agent."""
        with boot.phase("dial"):
            connected = asyncio.ensure_future(self._connected(machine))
            try:
                return await _unless_gone(connected, machine, self.link, timeout)
            except BaseException:
                if connected.done() and not connected.cancelled() and connected.exception() is None:
                    connected.result().close()  # it came in the moment we were cancelled, or something ended
                raise

    async def _connected(self, machine: Machine) -> socket.socket:
        await self.link.plug(machine)
        if (root := self.plan.image.root) is not None:
            await machine.plug_disk("root", root, serial=ROOT_SERIAL)
        await machine.resume()
        return await self.link.called()


async def bring_up(
    plan: Plan,
    boot: Boot,
    wanted_state_dir: str | os.PathLike[str] | None = None,
    through_qemu: bool = False,
) -> Called:
    """Bring a machine to where its agent has called: restored from its template if that goes, else booted."""
    async with AsyncExitStack() as undo:
        undo.enter_context(limits.one_machine())
        folder = rundir.create()
        undo.callback(rundir.remove, folder)
        state_dir = host.prepare_state_dir(wanted_state_dir, folder)
        confinement = await caps.confine(plan.caps, folder.name)
        undo.push_async_callback(confinement.close)
        logs, user = Logs.in_folder(state_dir), _user(plan, boot, through_qemu)
        way = link.open_link(plan.transport.transport, folder, logs.device, confinement, user)
        undo.push_async_callback(way.close)
        begun = _Begun(plan, way, logs, folder, user, confinement)
        machine, control = await _restored(begun, boot) or await _booted(begun, boot)
        undo.push_async_callback(machine.close)
        undo.callback(control.close)
        way.hang_up()
        return Called(machine, way, control, state_dir, confinement, undo.pop_all())
    raise AssertionError("the exit stack swallows nothing")


def _user(plan: Plan, boot: Boot, through_qemu: bool) -> User | None:
    """Whom QEMU is to run as; None: who we are. Where that is root, say why."""
    if os.geteuid() != 0:
        return None
    why = "a folder is shared through 9p" if through_qemu else users.obstacle(plan.accelerator.name)
    if why is None:
        return users.for_machine(plan.accelerator.name)
    boot.note = f"QEMU runs as root: {why}"
    logger.warning("%s", boot.note)
    return None


async def _restored(begun: _Begun, boot: Boot) -> tuple[Machine, socket.socket] | None:
    """Restore the machine, and return it with its agent's call. None when there is no template, or it did not go.

    The template is removed where it may be to blame: not where somebody else has ended QEMU.
    """
    plan, attempt = begun.plan, Boot("warm", boot.accelerator)
    saved = template.find(host.templates_dir(), plan.key) if plan.warm else None
    if saved is None:
        return None
    try:
        with attempt.phase("restore"):
            machine = await begun.spawn(saved)
        async with ended_on_failure(machine):
            control = await begun.dialled(machine, attempt, RESTORED_TIMEOUT)
    except CapReached:  # a boot wants no less
        raise
    except (FailedPrecondition, Unavailable, DeadlineExceeded) as error:
        if not begun.link.alive:  # that is what failed, and a boot needs it too
            raise
        if not isinstance(error, Killed):
            template.remove(saved)  # or the next start would meet it again
        fate = "kept" if isinstance(error, Killed) else "removed"
        boot.phases["failed restore"] = attempt.seconds
        boot.note = f"the template {plan.key} did not come to life and is {fate}: {error}"
        logger.warning("%s", boot.note)
        return None
    boot.kind, boot.template = attempt.kind, plan.key
    boot.phases |= attempt.phases
    return machine, control


async def _booted(begun: _Begun, boot: Boot) -> tuple[Machine, socket.socket]:
    """Boot the machine, save it as a template where it waits if one is wanted; return it with its agent's call."""
    plan = begun.plan
    with boot.phase("qemu"):
        machine = await begun.spawn()
    async with ended_on_failure(machine):
        if plan.warm:
            with boot.phase("boot"):
                await machine.resume()
                waits = machine.console.wait_for(command.WAITING)
                await _unless_gone(waits, machine, begun.link, plan.boot_timeout)
                await machine.pause()
            with boot.phase("save"):
                await _save(machine, plan, boot)
        return machine, await begun.dialled(machine, boot, plan.boot_timeout)


@contextlib.asynccontextmanager
async def ended_on_failure(machine: Closable) -> AsyncIterator[None]:
    """End a machine when the block fails."""
    try:
        yield
    except BaseException:
        await machine.close()
        raise


async def _save(machine: Machine, plan: Plan, boot: Boot) -> None:
    """Save the paused machine as a template. One that cannot be saved (disk full, …) is none the worse for it."""
    try:
        with template.building(host.templates_dir(), plan.key) as folder:
            if folder is not None:
                await machine.save(folder, plan.identity())
                boot.template = plan.key
    except (OSError, FailedPrecondition) as error:
        boot.note = f"no template was saved, the next start boots again: {error}"
        logger.warning("%s", boot.note)


async def _unless_gone(wanted: Awaitable[T], machine: Machine, way: Link, timeout: float) -> T:
    """Wait for what a booting machine should do, or for the machine, the way to it or the time to end."""
    hoped = asyncio.ensure_future(wanted)
    ends = [asyncio.ensure_future(one.wait_gone()) for one in (machine, way)]
    try:
        done, _ = await asyncio.wait({hoped, *ends}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if hoped in done and isinstance(unanswered := hoped.exception(), Unavailable):
            # Who is not answered knows that QEMU is gone, and who waits for its end, a moment later, why.
            told, _ = await asyncio.wait(ends, timeout=TOLD_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            raise next((end.result() for end in told), unanswered)
        if hoped in done:
            return hoped.result()
        if not done:
            tail = machine.console.ring.tail()
            raise DeadlineExceeded(
                f"the machine did not come up within {timeout:g} s; console, last lines:\n{tail}"
            )
        raise next(end.result() for end in ends if end in done)
    finally:
        for task in (hoped, *ends):
            task.cancel()
        await asyncio.gather(hoped, *ends, return_exceptions=True)
