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
import shutil
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from sandbox_nb import __version__, binaries, rundir, standby, timeline, ttrpc
from sandbox_nb.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ProtocolError,
    SandboxError,
    Unavailable,
    Unimplemented,
    from_status,
)
from sandbox_nb.guest import image
from sandbox_nb.guest.image import Image
from sandbox_nb.guest.proto.setup_pb2 import ConfigureRequest, RootDisk
from sandbox_nb.guest.proto.setup_ttrpc import SetupClient
from sandbox_nb.options import Options
from sandbox_nb.standby import Shelf
from sandbox_nb.ttrpc import Client, StatusError
from sandbox_nb.vm import accel, command, template
from sandbox_nb.vm.accel import Accelerator
from sandbox_nb.vm.machine import Logs, Machine
from sandbox_nb.vm.process import Child
from sandbox_nb.vm.template import Template
from sandbox_nb.vsock import connect

logger = logging.getLogger(__name__)

BOOT_TIMEOUT = {"kvm": 20.0, "tcg": 90.0}
"""Seconds from QEMU's start to the agent's call. Some ten times what a loaded machine was seen to need."""

RESTORED_TIMEOUT = 20.0
"""Seconds a restored machine gets to call; it takes a tenth of one. After that it is given up for a boot."""

ROOT_SERIAL = "sandbox-root"

T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how much of how much, in units of the stage's own."""


@dataclass
class Boot:
    """How a machine came up: which way, on what and why, and how long each phase took, in seconds."""

    kind: str
    accelerator: Accelerator
    phases: dict[str, float] = field(default_factory=dict)
    template: str = ""
    """Key of the template it was restored from, or is the first machine of."""
    note: str = ""
    """What kept it from being restored, or saved as a template."""

    @property
    def seconds(self) -> float:
        """From the call of ``start`` to a machine ready for commands."""
        return sum(self.phases.values())

    @property
    def title(self) -> str:
        """Kind, accelerator and time in a line."""
        return f"{self.kind} start in {timeline.duration(self.seconds)} on {self.accelerator}"

    def _repr_html_(self) -> str:
        return timeline.svg(self.title, self.phases)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def __str__(self) -> str:
        return timeline.text(self.title, self.phases)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = time.perf_counter() - began


@dataclass
class Running:
    """A configured machine and everything it needs; ``close`` ends all of it."""

    machine: Machine
    device: Child
    client: Client
    image: Image
    boot: Boot
    uds: Path
    state_dir: Path
    _undo: AsyncExitStack

    async def close(self) -> None:
        """End the machine and remove what it left. Idempotent."""
        await self._undo.aclose()

    async def wait_gone(self) -> Unavailable:
        """Wait until the machine, or the device that carries its calls, has ended; return why."""
        machine = asyncio.create_task(self.machine.wait_gone())
        device = asyncio.create_task(self.device.wait())
        try:
            await asyncio.wait({machine, device}, return_when=asyncio.FIRST_COMPLETED)
            if machine.done():
                return machine.result()
            words = self.device.log.tail(5) or f"it ended with status {device.result()}"
            return Unavailable(f"the vsock device is gone, and with it the way to the machine: {words}")
        finally:
            for task in (machine, device):
                task.cancel()
            await asyncio.gather(machine, device, return_exceptions=True)


@dataclass
class _Called:
    """A machine whose agent has called, and what it stands on; ``close`` ends all of it."""

    machine: Machine
    device: Child
    control: socket.socket
    uds: Path
    state_dir: Path
    _undo: AsyncExitStack

    @property
    def alive(self) -> bool:
        return self.machine.child.returncode is None and self.device.returncode is None

    async def close(self) -> None:
        """End the machine and remove what it left. Idempotent."""
        await self._undo.aclose()


@dataclass(frozen=True)
class _Plan:
    """What a start is made of, all found before anything runs."""

    spec: command.Spec
    image: Image
    accelerator: Accelerator
    warm: bool

    @property
    def boot_timeout(self) -> float:
        return BOOT_TIMEOUT[self.accelerator.name]

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
                "accel": self.spec.accel,
                "cpu": self.spec.cpu,
                "memory": self.spec.memory,
            },
            "image": self.image.digest,
            "qemu": [str(qemu), found.st_size, found.st_mtime_ns],
            "host": [accel.processor_flags(), os.uname().release] if self.accelerator.name == "kvm" else [],
            "argv": command.argv(self.spec, command.Fds(0, 0, 0)),
        }


@dataclass(frozen=True)
class _Begun:
    """What is there before the machine is."""

    plan: _Plan
    sockets: _Sockets
    device: Child
    logs: Logs

    async def spawn(self, saved: Template | None = None) -> Machine:
        """A paused machine with nothing plugged."""
        return await Machine.spawn(self.plan.spec, guard=binaries.guard(), logs=self.logs, template=saved)

    async def dialled(self, machine: Machine, boot: Boot, timeout: float) -> socket.socket:
        """Plug what the machine is to have, let it run, and return the call of its agent."""
        with boot.phase("dial"):
            await _plug(machine, self.sockets, self.plan.image)
            await machine.resume()
            return await _unless_gone(_accept(self.sockets.control), machine, self.device, timeout)


async def launch(options: Options, *, hostname: str, progress: Progress | None = None) -> Running:
    """Start a machine and configure it.

    Raises InvalidArgument, NotFound or FailedPrecondition for what is wrong before anything runs; Unavailable with
    the console's last lines when the machine ends while it boots; DeadlineExceeded when it never calls.
    """
    refuse_unimplemented(options)
    began = time.perf_counter()
    plan = await _plan(options, progress)
    boot = Boot("cold", plan.accelerator, {"prepare": time.perf_counter() - began})
    shelf = standby.shelf(plan.key, lambda: _paused(plan), plan.spec.memory) if options.standby else None
    async with AsyncExitStack() as undo:
        called = await _taken(shelf, boot) if shelf is not None and options.state_dir is None else None
        if called is None:
            called = await _called(plan, boot, options.state_dir)
        undo.push_async_callback(called.close)
        with boot.phase("configure"):
            client = await Client.from_socket(called.control, map_error=_map_error)
            undo.push_async_callback(client.aclose)
            await SetupClient(client).configure(_configuration(options, hostname, plan.image))
        if shelf is not None:
            shelf.want(options.standby)
            undo.push_async_callback(shelf.leave, options.standby)
        return Running(
            called.machine, called.device, client, plan.image, boot, called.uds, called.state_dir, undo.pop_all()
        )
    raise AssertionError("the exit stack swallows nothing")


async def _plan(options: Options, progress: Progress | None) -> _Plan:
    """Find QEMU, the image and the accelerator."""
    qemu = find_qemu()
    found = await ensure_image(options, progress)
    accelerator = await choose_accelerator(options)
    spec = command.Spec(
        qemu=qemu,
        accel=accelerator.name,
        cpu=options.cpu_count,
        memory=options.memory_mib,
        kernel=found.kernel,
        initrd=found.initrd,
        preload=options.wants_warm,
    )
    return _Plan(spec, found, accelerator, warm=options.wants_warm)


async def _paused(plan: _Plan) -> _Called:
    """A machine to stand by: its agent has called, and it is paused."""
    called = await _called(plan, Boot("cold", plan.accelerator), None)
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


async def _called(plan: _Plan, boot: Boot, wanted_state_dir: str | os.PathLike[str] | None) -> _Called:
    """Bring a machine to where its agent has called: restored from its template if that goes, else booted."""
    async with AsyncExitStack() as undo:
        folder = rundir.create()
        undo.callback(rundir.remove, folder)
        state_dir = prepare_state_dir(wanted_state_dir, folder)
        sockets = _Sockets(folder)
        undo.callback(sockets.close)
        device = _spawn_device(sockets)
        undo.push_async_callback(device.stop)
        begun = _Begun(plan, sockets, device, Logs.in_folder(state_dir))
        machine, control = await _restored(begun, boot) or await _booted(begun, boot)
        undo.push_async_callback(machine.close)
        undo.callback(control.close)
        return _Called(machine, device, control, sockets.uds, state_dir, undo.pop_all())
    raise AssertionError("the exit stack swallows nothing")


async def _restored(begun: _Begun, boot: Boot) -> tuple[Machine, socket.socket] | None:
    """Restore the machine, and return it with its agent's call. None when there is no template, or a bad one."""
    plan, attempt = begun.plan, Boot("warm", boot.accelerator)
    saved = template.find(templates_dir(), plan.key) if plan.warm else None
    if saved is None:
        return None
    try:
        with attempt.phase("restore"):
            machine = await begun.spawn(saved)
        async with _ended_on_failure(machine):
            control = await begun.dialled(machine, attempt, RESTORED_TIMEOUT)
    except (FailedPrecondition, Unavailable, DeadlineExceeded) as error:
        if begun.device.returncode is not None:  # that is what failed, and a boot needs it too
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
                await _unless_gone(waits, machine, begun.device, plan.boot_timeout)
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
        with template.building(templates_dir(), plan.key) as folder:
            if folder is not None:
                await machine.save(folder, plan.identity())
                boot.template = plan.key
    except (OSError, FailedPrecondition) as error:
        boot.note = f"no template was saved, the next start boots again: {error}"
        logger.warning("%s", boot.note)


def templates_dir() -> Path:
    """Where templates are kept."""
    return cache_dir() / "templates"


def refuse_unimplemented(options: Options) -> None:
    """Raise Unimplemented for options that are understood and validated, and not carried out yet."""
    for name in ("disks", "filesystems", "nics"):
        if getattr(options, name):
            raise Unimplemented(f"{name}= is not carried out yet")
    if options.network != "none":
        raise Unimplemented(f"network={options.network!r} is not carried out yet; network='none' is")


def find_qemu() -> Path:
    """The QEMU for this host's architecture. Raises NotFound with what to install."""
    name = "qemu-system-x86_64"
    path = shutil.which(name)
    if path is None:
        raise NotFound(
            f"{name} is not installed: sudo apt-get install qemu-system-x86 (or see: sandbox-nb doctor)"
        )
    return Path(path)


async def choose_accelerator(options: Options) -> Accelerator:
    """Decide what the machine runs on. Raises FailedPrecondition when what was asked for does not work."""
    return await accel.choose(
        options.accel, qemu=find_qemu(), probe=binaries.probe(), guard=binaries.guard(), cache=cache_dir()
    )


def cache_dir() -> Path:
    """The user's cache folder: images, verdicts on the accelerator."""
    return Path(platformdirs.user_cache_dir("sandbox_nb"))


async def ensure_image(options: Options, progress: Progress | None = None) -> Image:
    """Find or build the image; building is blocking work and runs in a thread, ended when we are cancelled."""
    cancelled = threading.Event()

    def report(stage: str, done: int, total: int) -> None:
        if cancelled.is_set():
            raise KeyboardInterrupt
        if progress is not None:
            progress(stage, done, total)

    def ensure() -> Image:
        return image.ensure(
            options.image,
            agent=binaries.agent("x86_64"),
            kernel=options.kernel,
            modules=options.modules,
            busybox=options.busybox,
            rootfs=options.rootfs,
            progress=report,
        )

    try:
        return await asyncio.to_thread(ensure)
    except asyncio.CancelledError:
        cancelled.set()
        raise


def prepare_state_dir(wanted: str | os.PathLike[str] | None, run_folder: Path) -> Path:
    """Make the folder for logs. Raises InvalidArgument when the caller's cannot be one."""
    if wanted is None:
        private = run_folder / "state"
        private.mkdir(mode=0o700)
        return private
    folder = Path(wanted)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "console.log").touch()
    except OSError as error:
        raise InvalidArgument(
            f"state_dir={str(wanted)!r} cannot be used: {error.strerror}; give a folder that can be written to"
        ) from error
    return folder


class _Sockets:
    """The listening sockets of one sandbox, made before anybody could want to connect to them.

    Those of the vsock device are handed to it and not kept: when it dies, who dials it must be refused, not wait.
    """

    def __init__(self, folder: Path) -> None:
        self.uds = folder / "v"
        self.vhost_path = folder / "vhost"
        self._open: list[socket.socket] = []
        try:
            self.vhost = self._listen(self.vhost_path)
            self.hybrid = self._listen(self.uds)
            self.control = self._keep(connect.listen(self.uds, command.RPC_PORT))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for sock in self._open:
            sock.close()

    def _listen(self, path: Path) -> socket.socket:
        sock = self._keep(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.bind(str(path))
        sock.listen(128)
        return sock

    def _keep(self, sock: socket.socket) -> socket.socket:
        self._open.append(sock)
        return sock


def _spawn_device(sockets: _Sockets) -> Child:
    """Start the vsock device, by path and without site: 17 ms instead of 37."""
    program = Path(connect.__file__).with_name("__main__.py")
    vhost, hybrid = sockets.vhost.fileno(), sockets.hybrid.fileno()
    device = Child.spawn(
        [
            *(sys.executable, "-I", "-S", program),
            *("--socket-fd", str(vhost), "--uds-fd", str(hybrid), "--uds", sockets.uds),
            *("--cid", str(command.GUEST_CID)),
        ],
        name="the vsock device",
        guard=binaries.guard(),
        pass_fds=(vhost, hybrid),
    )
    sockets.vhost.close()
    sockets.hybrid.close()
    return device


async def _plug(machine: Machine, sockets: _Sockets, found: Image) -> None:
    await machine.plug_vsock(sockets.vhost_path)
    if found.root is not None:
        await machine.plug_disk("root", found.root, serial=ROOT_SERIAL)


async def _accept(listening: socket.socket) -> socket.socket:
    """The agent's call, which says that it is ready."""
    listening.setblocking(False)
    return (await asyncio.get_running_loop().sock_accept(listening))[0]


async def _unless_gone(wanted: Coroutine[Any, Any, T], machine: Machine, device: Child, timeout: float) -> T:
    """Wait for what a booting machine should do, or for the machine, the device or the time to end."""
    hoped = asyncio.ensure_future(wanted)
    ends = {asyncio.ensure_future(machine.wait_gone()), asyncio.ensure_future(device.wait())}
    try:
        done, _ = await asyncio.wait({hoped, *ends}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if hoped in done:
            return hoped.result()
        if not done:
            tail = machine.console.ring.tail()
            raise DeadlineExceeded(
                f"the machine did not come up within {timeout:g} s; console, last lines:\n{tail}"
            )
        if machine.child.returncode is None:
            raise Unavailable(f"the vsock device ended while the machine booted: {device.log.tail(5)}")
        raise await machine.wait_gone()
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
