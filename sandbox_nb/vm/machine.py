"""One running QEMU: spawn it, speak QMP with it, plug devices into it, and know at once when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sandbox_nb.errors import FailedPrecondition, SandboxError, Unavailable
from sandbox_nb.vm import command
from sandbox_nb.vm import template as template_files
from sandbox_nb.vm.attach import UNPLUG_TIMEOUT, Attached, Attachments
from sandbox_nb.vm.backend import Backend, Host
from sandbox_nb.vm.caps import UNCONFINED, Confinement
from sandbox_nb.vm.command import Fds, Spec
from sandbox_nb.vm.console import Console
from sandbox_nb.vm.monitor import Monitor, file_name
from sandbox_nb.vm.obituary import obituary
from sandbox_nb.vm.ports import RootPorts
from sandbox_nb.vm.process import Child
from sandbox_nb.vm.slots import Slots
from sandbox_nb.vm.template import Template, copy_ram
from sandbox_nb.vm.users import User

logger = logging.getLogger(__name__)

QUIT_TIMEOUT = 10.0
"""Seconds a QEMU that said it would quit gets to write its disks back. One that says nothing gets half of one."""

_ENDED = "QEMU ended"
"""How a migration went that QEMU did not live to finish; it says "completed" or "failed" of others."""

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class Logs:
    """The files a machine writes in its state folder."""

    console: Path
    qemu: Path
    device: Path
    """What the vsock device says; there is none where the kernel carries vsock."""

    @classmethod
    def in_folder(cls, folder: Path) -> Logs:
        """The usual names."""
        return cls(folder / "console.log", folder / "qemu.log", folder / "device.log")

    @property
    def all(self) -> tuple[Path, ...]:
        """All of them."""
        return self.console, self.qemu, self.device


class Machine:
    """A QEMU process with its QMP session and its console. Belongs to the event loop it was started in."""

    def __init__(self, child: Child, console: Console, ram: int, host: Host) -> None:
        self.child = child
        self.console = console
        self._monitor = host.monitor
        self._ram = ram
        self._migration: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ports = RootPorts(command.ROOT_PORTS, self._monitor.execute)
        self._attachments = Attachments(host, self._ports)
        self._shutdown_reason = ""
        self._events = asyncio.create_task(self._follow_events(), name="qmp-events")
        self._ending = asyncio.create_task(self._end_with_child(), name="qemu-end")

    @classmethod
    async def spawn(
        cls,
        spec: Spec,
        *,
        guard: Path,
        logs: Logs,
        folder: Path,
        template: Template | None = None,
        user: User | None = None,
        confinement: Confinement = UNCONFINED,
    ) -> Machine:
        """Start QEMU and return once it answers QMP; the guest is paused, nothing is plugged.

        ``folder`` is a private one, with a path short enough for sockets, that outlives the machine.
        With a template, the guest is the one that was saved, and its RAM is copied while QEMU starts.
        With a ``user`` QEMU runs as that one, and can open nothing but what it is handed. ``confinement`` holds
        QEMU, and what comes to work for it, to the machine's caps.

        Raises Unavailable with QEMU's own words when it ends instead, FailedPrecondition when it is too old or
        does not take the template.
        """
        with ExitStack() as undo, ExitStack() as given_away:
            ram = _memfd(spec.memory << 20)
            undo.callback(os.close, ram)
            qmp_end, qmp_qemu = _socket_pair(undo, given_away)
            console_end, console_qemu = _socket_pair(undo, given_away)
            console = Console(console_end, logs.console)
            undo.callback(console.close)
            links = folder / "9p"
            # Who is handed it looks links up in it; nobody else comes this far, the folder around it is private.
            links.mkdir(mode=0o711, exist_ok=True)
            slots = os.open(links, os.O_PATH | os.O_DIRECTORY)
            given_away.callback(os.close, slots)
            fds = Fds(
                ram=ram,
                qmp=qmp_qemu.fileno(),
                console=console_qemu.fileno(),
                kernel=_given(spec.kernel, given_away),
                initrd=_given(spec.initrd, given_away),
                slots=slots,
            )
            log_file = logs.qemu.open("wb", buffering=0)
            undo.callback(log_file.close)
            child = Child.spawn(
                command.argv(spec, fds, incoming=template is not None),
                name="QEMU",
                guard=guard,
                pass_fds=(fds.ram, fds.qmp, fds.console, fds.kernel, fds.initrd, slots),
                log_file=log_file,
                user=user,
                confinement=confinement,
            )
            given_away.close()
            filling = asyncio.ensure_future(_fill(ram, template))
            try:
                monitor = await Monitor.connect(qmp_end, child)
            except BaseException:
                child.kill()
                # The thread writes to the RAM; it must not be closed under it.
                await asyncio.gather(filling, return_exceptions=True)
                await child.wait()
                raise
            undo.pop_all()
        machine = cls(child, console, ram, Host(monitor, Slots(links), folder, guard, user, confinement))
        try:
            await filling
            if template is not None:
                await machine._load(template.state)
        except Unavailable as error:
            gone = await machine.wait_gone()
            await machine.close()
            raise gone from error
        except BaseException:
            await machine.close()
            raise
        return machine

    async def execute(self, verb: str, arguments: dict[str, Any] | None = None) -> Any:
        """Send a QMP command and return its answer.

        Raises NotFound or FailedPrecondition when QEMU refuses, Unavailable when QEMU is gone.
        """
        return await self._monitor.execute(verb, arguments)

    def tap(self, tap: Callable[[bool, bytes], None] | None) -> None:
        """Have ``tap`` called with each QMP message from now on; None ends that."""
        self._monitor.tap(tap)

    async def plug_vsock(self, path: Path) -> None:
        """Plug the vsock device whose vhost-user socket is ``path``."""
        await self._monitor.connect_chardev("vsock-chardev", path)
        await self._ports.plug("vsock", {"driver": "vhost-user-vsock-pci", "chardev": "vsock-chardev"})

    async def plug_kernel_vsock(self, vhost: int, cid: int) -> None:
        """Plug the host kernel's vsock device: ``vhost`` is an open /dev/vhost-vsock that has claimed ``cid``."""
        await self._monitor.give_fd(vhost, "vhost-vsock")
        properties = {"driver": "vhost-vsock-pci", "vhostfd": "vhost-vsock", "guest-cid": cid}
        await self._ports.plug("vsock", properties)

    async def plug_disk(self, name: str, path: Path, *, serial: str) -> None:
        """Plug the raw image ``path``, read-only, as a virtio disk with the serial number ``serial``."""
        with path.open("rb", buffering=0) as image:
            number = await self._monitor.give_file(image.fileno())
        file = {"driver": "file", "filename": file_name(number), "read-only": True}
        node = {"driver": "raw", "node-name": name, "read-only": True, "file": file}
        await self.execute("blockdev-add", node)
        await self._ports.plug(f"{name}-dev", {"driver": "virtio-blk-pci", "drive": name, "serial": serial})

    async def attach(self, name: str, backend: Backend) -> Attached:
        """Attach a disk, share or network card, to a machine that runs or that has yet to. See Attachments."""
        return await self._attachments.attach(name, backend)

    async def detach(self, name: str, *, timeout: float = UNPLUG_TIMEOUT) -> None:
        """Take a device out with the guest's agreement. See Attachments."""
        await self._attachments.detach(name, timeout=timeout)

    @property
    def devices(self) -> list[Attached]:
        """What is attached, in the order it came."""
        return self._attachments.devices

    async def resume(self) -> None:
        """Let the guest run."""
        await self.execute("cont")

    async def pause(self) -> None:
        """Stop the guest where it is."""
        await self.execute("stop")

    async def save(self, folder: Path, about: dict[str, Any]) -> None:
        """Write the paused machine to ``folder`` as a template. Nothing unmigratable may be plugged."""
        with (folder / template_files.STATE).open("wb", buffering=0) as state:
            await self._prepare_migration(state.fileno())
            await self.execute("migrate", {"uri": "fd:state"})
            await self._migrated()
        size = os.fstat(self._ram).st_size
        mark = await _to_its_end(template_files.write_ram, self._ram, size, folder)
        template_files.write_record(folder, size, mark, about)

    async def _load(self, path: Path) -> None:
        try:
            state = path.open("rb", buffering=0)
        except OSError as error:  # removed by another process right now
            raise FailedPrecondition(f"the template's state cannot be read: {error}") from error
        with state:
            await self._prepare_migration(state.fileno())
            await self.execute("migrate-incoming", {"uri": "fd:state"})
            await self._migrated()

    async def _prepare_migration(self, state: int) -> None:
        """Leave the RAM out, and hand QEMU the file: its sandbox forbids ``exec:``, 7.2 knows no ``file:``."""
        capabilities = [{"capability": name, "state": True} for name in ("events", "x-ignore-shared")]
        await self.execute("migrate-set-capabilities", {"capabilities": capabilities})
        await self._monitor.give_fd(state, "state")

    async def _migrated(self) -> None:
        status = await self._migration
        self._migration = asyncio.get_running_loop().create_future()
        if status == _ENDED:
            raise await self.wait_gone()
        if status != "completed":
            raise FailedPrecondition(f"QEMU did not take the machine's state: {status}; {self.child.log.tail(3)}")

    async def wait_gone(self) -> Unavailable:
        """Wait until QEMU has ended; return the error that tells why."""
        await asyncio.shield(self._ending)
        status = await self.child.wait()
        # The console still holds the guest's last words.
        self.console.close()
        return await obituary(self._shutdown_reason, status, self.child, self.console)

    async def close(self) -> None:
        """End QEMU, politely if it listens, and let go of everything. Idempotent."""
        grace = 0.5
        try:
            with contextlib.suppress(SandboxError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.execute("quit")
                    grace = QUIT_TIMEOUT
        finally:
            await self.child.stop(grace=grace)
            await asyncio.shield(self._ending)
            await self._attachments.close()
            self.console.close()
            self._close_ram()

    def _close_ram(self) -> None:
        if self._ram >= 0:
            os.close(self._ram)
            self._ram = -1

    async def _follow_events(self) -> None:
        try:
            async for event in self._monitor.events():
                logger.debug("QMP event %s", event)
                if event["event"] == "SHUTDOWN":
                    self._shutdown_reason = event["data"]["reason"]
                elif event["event"] == "DEVICE_DELETED":
                    self._ports.deleted(event["data"].get("device", ""))
                elif event["event"] == "MIGRATION" and event["data"]["status"] in ("completed", "failed"):
                    self._migration.set_result(event["data"]["status"])
        finally:
            # QEMU is gone: nobody may wait for what nobody will finish.
            self._ports.ended()
            if not self._migration.done():
                self._migration.set_result(_ENDED)

    async def _end_with_child(self) -> None:
        """End the session, which does not tell who waits for events that none will come, when QEMU has ended."""
        await self.child.wait()
        await self._monitor.close()
        self._events.cancel()
        await asyncio.gather(self._events, return_exceptions=True)


async def _to_its_end(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Run ``function`` in a thread, and wait for it even when cancelled: it uses what is closed next."""
    working = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **keywords))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise


async def _fill(ram: int, template: Template | None) -> None:
    """Copy the RAM of a template, if there is one. Raises FailedPrecondition when it cannot be read."""
    if template is None:
        return
    try:
        await _to_its_end(copy_ram, template, ram)
    except OSError as error:  # removed by another process right now, or a bad disk
        raise FailedPrecondition(f"the template's RAM cannot be read: {error}") from error


def _memfd(size: int) -> int:
    """The guest's RAM: shared with the vsock device, bound by no /dev/shm, and gone with its last user."""
    fd = os.memfd_create("sandbox_nb-ram")
    os.ftruncate(fd, size)
    return fd


def _socket_pair(undo: ExitStack, given_away: ExitStack) -> tuple[socket.socket, socket.socket]:
    """A pair of which the first end is ours until all went well, the second QEMU's once it runs."""
    ours, theirs = socket.socketpair()
    undo.callback(ours.close)
    given_away.callback(theirs.close)
    return ours, theirs


def _given(path: Path, given_away: ExitStack) -> int:
    """A descriptor of a file to boot, which QEMU opens once more by that, whoever it runs as."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    given_away.callback(os.close, fd)
    if os.fstat(fd).st_mode & stat.S_IROTH:
        return fd
    copy = os.memfd_create(path.name)
    given_away.callback(os.close, copy)
    while os.sendfile(copy, fd, None, 1 << 30):
        pass
    return copy
