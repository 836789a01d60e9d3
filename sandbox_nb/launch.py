"""From options to a configured machine: the one place that joins vm, vsock, ttrpc and guest.

A launch either returns a machine that has answered Setup/Configure, or raises and has left nothing behind: every
step registers its undoing on one exit stack before the next begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sandbox_nb import __version__, binaries, hardware, host, limits, link, rundir, standby, ttrpc
from sandbox_nb.boot import Boot
from sandbox_nb.devices import Filesystem
from sandbox_nb.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    ProtocolError,
    SandboxError,
    Unavailable,
    from_status,
)
from sandbox_nb.guest.image import Image
from sandbox_nb.guest.proto.setup_pb2 import ConfigureRequest, RootDisk
from sandbox_nb.guest.proto.setup_ttrpc import SetupClient
from sandbox_nb.guest.proto.system_ttrpc import SystemClient
from sandbox_nb.hardware import Hardware
from sandbox_nb.host import Progress
from sandbox_nb.link import Link
from sandbox_nb.options import Options
from sandbox_nb.standby import Shelf
from sandbox_nb.ttrpc import Client, StatusError
from sandbox_nb.vm import accel, command, shares, template, users
from sandbox_nb.vm.accel import Accelerator
from sandbox_nb.vm.machine import Logs, Machine
from sandbox_nb.vm.template import Template
from sandbox_nb.vm.users import User
from sandbox_nb.vsock.transport import Choice

logger = logging.getLogger(__name__)

BOOT_TIMEOUT = {"kvm": 20.0, "tcg": 90.0}
"""Seconds from QEMU's start to the agent's call. Some ten times what a loaded machine was seen to need."""

RESTORED_TIMEOUT = 20.0
"""Seconds a restored machine gets to call; it takes a tenth of one. After that it is given up for a boot."""

HUNG_UP_GRACE = 0.5
"""Seconds between an agent that hangs up and the verdict that it alone is to blame."""

ROOT_SERIAL = "sandbox-root"

T = TypeVar("T")


@dataclass
class Running:
    """A configured machine and everything it needs; ``close`` ends all of it."""

    machine: Machine
    link: Link
    client: Client
    hardware: Hardware
    image: Image
    boot: Boot
    state_dir: Path
    _undo: AsyncExitStack

    async def close(self) -> None:
        """End the machine and remove what it left. Idempotent."""
        await self._undo.aclose()

    async def wait_gone(self) -> Unavailable:
        """Wait until the machine, what carries its calls, or the agent has ended; return why."""
        waiting = (self.machine.wait_gone(), self._wait_link_gone(), self._wait_hung_up())
        ends = [asyncio.create_task(one) for one in waiting]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return next(end.result() for end in ends if end.done())
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    async def _wait_link_gone(self) -> Unavailable:
        return self._with_last_words(str(await self.link.wait_gone()))

    async def _wait_hung_up(self) -> Unavailable:
        await self.client.wait_closed()
        # Mostly it is the machine that ends, which is known a moment later.
        await asyncio.sleep(HUNG_UP_GRACE)
        try:
            await SystemClient(self.client).info()
        except SandboxError as error:
            return self._with_last_words(f"the agent is gone, and the machine of no use without it: {error}")
        raise AssertionError("nothing is called over a connection that has ended")

    def _with_last_words(self, why: str) -> Unavailable:
        tail = self.machine.console.ring.last_words().strip()
        return Unavailable(f"{why}\nconsole, last lines:\n{tail}" if tail else why)


@dataclass
class _Called:
    """A machine whose agent has called, and what it stands on; ``close`` ends all of it."""

    machine: Machine
    link: Link
    control: socket.socket
    state_dir: Path
    _undo: AsyncExitStack

    @property
    def alive(self) -> bool:
        return self.machine.child.returncode is None and self.link.alive

    async def close(self) -> None:
        """End the machine and remove what it left. Idempotent."""
        await self._undo.aclose()


@dataclass(frozen=True)
class _Plan:
    """What a start is made of, all found before anything runs."""

    spec: command.Spec
    image: Image
    accelerator: Accelerator
    transport: Choice
    warm: bool

    @property
    def boot_timeout(self) -> float:
        return BOOT_TIMEOUT[self.accelerator.name]

    @property
    def kind(self) -> str:
        """Machines of one kind can stand by for each other."""
        return f"{self.key} {self.transport.transport}"

    @property
    def key(self) -> str:
        """The key of its template."""
        return template.key(self.identity())

    def identity(self) -> dict[str, Any]:
        """All that makes one saved machine unlike another, beside the command line."""
        qemu = self.spec.qemu.resolve()
        found = qemu.stat()
        return {
            "sandbox_nb": __version__,
            "machine": {
                "image": self.image.name,
                "arch": self.spec.arch.name,
                "accel": self.spec.accel,
                "cpu": self.spec.cpu,
                "memory": self.spec.memory,
            },
            "image": self.image.digest,
            "qemu": [str(qemu), found.st_size, found.st_mtime_ns],
            "host": [accel.processor_flags(), os.uname().release] if self.accelerator.name == "kvm" else [],
            "argv": command.argv(self.spec, command.Fds(0, 0, 0, 0, 0, 0)),
        }


@dataclass(frozen=True)
class _Begun:
    """What is there before the machine is."""

    plan: _Plan
    link: Link
    logs: Logs
    folder: Path
    user: User | None

    async def spawn(self, saved: Template | None = None) -> Machine:
        """A paused machine with nothing plugged."""
        return await Machine.spawn(
            self.plan.spec,
            guard=binaries.guard(),
            logs=self.logs,
            folder=self.folder,
            template=saved,
            user=self.user,
        )

    async def dialled(self, machine: Machine, boot: Boot, timeout: float) -> socket.socket:
        """Plug the way to the host and the root, let the machine run, and return the call of its agent."""
        with boot.phase("dial"):
            await self.link.plug(machine)
            if (root := self.plan.image.root) is not None:
                await machine.plug_disk("root", root, serial=ROOT_SERIAL)
            await machine.resume()
            return await _unless_gone(self.link.called(), machine, self.link, timeout)


async def launch(options: Options, *, hostname: str, progress: Progress | None = None) -> Running:
    """Start a machine and configure it.

    Raises InvalidArgument, NotFound or FailedPrecondition for what is wrong before anything runs; Unavailable with
    the console's last lines when the machine ends while it boots; DeadlineExceeded when it never calls.
    """
    began = time.perf_counter()
    plan = await _plan(options, progress)
    boot = Boot("cold", plan.accelerator, {"prepare": time.perf_counter() - began}, ": ".join(plan.transport))
    shelf = standby.shelf(plan.kind, lambda: _paused(plan), plan.spec.memory) if options.standby else None
    async with hardware.prepared(options.devices, sandbox=hostname) as devices, AsyncExitStack() as undo:
        through_qemu = await _shared_through_qemu(options.filesystems)
        called = None
        if shelf is not None and options.state_dir is None and not through_qemu:
            called = await _taken(shelf, boot)
        if called is None:
            called = await _called(plan, boot, options.state_dir, through_qemu)
        undo.push_async_callback(called.close)
        with boot.phase("configure"):
            client = await Client.from_socket(called.control, map_error=_map_error)
            undo.push_async_callback(client.aclose)
            await SetupClient(client).configure(_configuration(options, hostname, plan.image))
        fitted = Hardware(called.machine, client, sandbox=hostname)
        if devices:
            with boot.phase("devices"):
                await fitted.fit(devices)
        if shelf is not None:
            shelf.want(options.standby)
            undo.push_async_callback(shelf.leave, options.standby)
        return Running(
            called.machine, called.link, client, fitted, plan.image, boot, called.state_dir, undo.pop_all()
        )
    raise AssertionError("the exit stack swallows nothing")


async def command_line(options: Options, progress: Progress | None = None) -> list[str]:
    """QEMU's command line for a machine with these options, numbers of inherited descriptors as 0.

    Devices are not in it: they are plugged when QEMU runs. The image is built if it is not there. Raises what a
    start would raise before anything runs.
    """
    argv: list[str] = (await _plan(options, progress)).identity()["argv"]
    return argv


async def _plan(options: Options, progress: Progress | None) -> _Plan:
    """Find QEMU, the image, the accelerator and what carries vsock."""
    arch = host.guest_architecture(options)
    qemu = host.find_qemu(arch)
    transport = link.choose(options.transport)
    found = await host.ensure_image(options, progress)
    accelerator = await host.choose_accelerator(options)
    spec = command.Spec(
        arch=arch,
        qemu=qemu,
        accel=accelerator.name,
        cpu=options.cpu_count,
        memory=options.memory_mib,
        kernel=found.kernel,
        initrd=found.initrd,
        preload=options.wants_warm,
    )
    return _Plan(spec, found, accelerator, transport, warm=options.wants_warm)


async def _paused(plan: _Plan) -> _Called:
    """A machine to stand by: its agent has called, and it is paused."""
    called = await _called(plan, Boot("cold", plan.accelerator))
    async with _ended_on_failure(called):
        await called.machine.pause()
    return called


async def _taken(shelf: Shelf[_Called], boot: Boot) -> _Called | None:
    """Let a machine that stood by run on, if there is one."""
    called = await shelf.take()
    if called is None:
        return None
    with boot.phase("take"):
        async with _ended_on_failure(called):
            await called.machine.resume()
    boot.kind = "standby"
    return called


async def _shared_through_qemu(shared: Sequence[Filesystem]) -> bool:
    """Whether root's QEMU has to stay root's, since the guest is to have root's rights to a folder through it."""
    if os.geteuid() != 0 or not shared:
        return False
    folder = rundir.create()
    try:
        ways = [await shares.through_virtiofs(one, folder, binaries.guard()) for one in shared]
        return None in ways
    finally:
        rundir.remove(folder)


def _user(plan: _Plan, boot: Boot, through_qemu: bool) -> User | None:
    """Whom QEMU is to run as; None: who we are. Where that is root, say why."""
    if os.geteuid() != 0:
        return None
    why = "a folder is shared through 9p" if through_qemu else users.obstacle(plan.accelerator.name)
    if why is None:
        return users.for_machine(plan.accelerator.name)
    boot.note = f"QEMU runs as root: {why}"
    logger.warning("%s", boot.note)
    return None


async def _called(
    plan: _Plan,
    boot: Boot,
    wanted_state_dir: str | os.PathLike[str] | None = None,
    through_qemu: bool = False,
) -> _Called:
    """Bring a machine to where its agent has called: restored from its template if that goes, else booted."""
    async with AsyncExitStack() as undo:
        undo.enter_context(limits.one_machine())
        folder = rundir.create()
        undo.callback(rundir.remove, folder)
        state_dir = host.prepare_state_dir(wanted_state_dir, folder)
        way = link.open_link(plan.transport.transport, folder)
        undo.push_async_callback(way.close)
        begun = _Begun(plan, way, Logs.in_folder(state_dir), folder, _user(plan, boot, through_qemu))
        machine, control = await _restored(begun, boot) or await _booted(begun, boot)
        undo.push_async_callback(machine.close)
        undo.callback(control.close)
        return _Called(machine, way, control, state_dir, undo.pop_all())
    raise AssertionError("the exit stack swallows nothing")


async def _restored(begun: _Begun, boot: Boot) -> tuple[Machine, socket.socket] | None:
    """Restore the machine, and return it with its agent's call. None when there is no template, or a bad one."""
    plan, attempt = begun.plan, Boot("warm", boot.accelerator)
    saved = template.find(host.templates_dir(), plan.key) if plan.warm else None
    if saved is None:
        return None
    try:
        with attempt.phase("restore"):
            machine = await begun.spawn(saved)
        async with _ended_on_failure(machine):
            control = await begun.dialled(machine, attempt, RESTORED_TIMEOUT)
    except (FailedPrecondition, Unavailable, DeadlineExceeded) as error:
        if not begun.link.alive:  # that is what failed, and a boot needs it too
            raise
        # Whatever is wrong with it, the next start must not meet it again.
        template.remove(saved)
        boot.phases["failed restore"] = attempt.seconds
        boot.note = f"the template {plan.key} did not come to life and is removed: {error}"
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
    async with _ended_on_failure(machine):
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
async def _ended_on_failure(machine: Machine | _Called) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        await machine.close()
        raise


async def _save(machine: Machine, plan: _Plan, boot: Boot) -> None:
    """Save the paused machine as a template. One that cannot be saved (disk full, …) is none the worse for it."""
    try:
        with template.building(host.templates_dir(), plan.key) as folder:
            if folder is not None:
                await machine.save(folder, plan.identity())
                boot.template = plan.key
    except (OSError, FailedPrecondition) as error:
        boot.note = f"no template was saved, the next start boots again: {error}"
        logger.warning("%s", boot.note)


async def _unless_gone(wanted: Coroutine[Any, Any, T], machine: Machine, way: Link, timeout: float) -> T:
    """Wait for what a booting machine should do, or for the machine, the way to it or the time to end."""
    hoped = asyncio.ensure_future(wanted)
    ends = [asyncio.ensure_future(one.wait_gone()) for one in (machine, way)]
    try:
        done, _ = await asyncio.wait({hoped, *ends}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
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


def _configuration(options: Options, hostname: str, found: Image) -> ConfigureRequest:
    request = ConfigureRequest(
        entropy=os.urandom(64),
        clock_realtime_ns=time.time_ns(),
        hostname=hostname,
        machine_id=secrets.token_hex(16),
        init_args=options.init_args_bytes,
    )
    if found.root is not None:
        request.root.CopyFrom(RootDisk(serial=ROOT_SERIAL, type=found.root_type))
    return request


def _map_error(error: StatusError) -> SandboxError:
    if isinstance(error, ttrpc.ProtocolError):
        return ProtocolError(error.message)
    return from_status(error.code, error.message, tuple(error.details))
