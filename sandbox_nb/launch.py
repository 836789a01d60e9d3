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
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from sandbox_nb import binaries, rundir
from sandbox_nb.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
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
from sandbox_nb.ttrpc import Client, StatusError
from sandbox_nb.vm import accel, command
from sandbox_nb.vm.accel import Accelerator
from sandbox_nb.vm.machine import Logs, Machine
from sandbox_nb.vm.process import Child
from sandbox_nb.vsock import connect

logger = logging.getLogger(__name__)

BOOT_TIMEOUT = {"kvm": 20.0, "tcg": 90.0}
"""Seconds from QEMU's start to the agent's call. Some ten times what a loaded machine was seen to need."""

ROOT_SERIAL = "sandbox-root"

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how much of how much, in units of the stage's own."""


@dataclass
class Boot:
    """How a machine came up: which way, on what and why, and how long each phase took, in seconds."""

    kind: str
    accelerator: Accelerator
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """From the call of ``start`` to a machine ready for commands."""
        return sum(self.phases.values())

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


async def launch(options: Options, *, hostname: str, progress: Progress | None = None) -> Running:
    """Start a machine, cold, and configure it.

    Raises InvalidArgument, NotFound or FailedPrecondition for what is wrong before anything runs; Unavailable with
    the console's last lines when the machine ends while it boots; DeadlineExceeded when it never calls.
    """
    refuse_unimplemented(options)
    began = time.perf_counter()
    qemu = find_qemu()
    found = await ensure_image(options, progress)
    accelerator = await choose_accelerator(options)
    boot = Boot("cold", accelerator, {"prepare": time.perf_counter() - began})
    spec = command.Spec(
        qemu=qemu,
        accel=accelerator.name,
        cpu=options.cpu_count,
        memory=options.memory_mib,
        kernel=found.kernel,
        initrd=found.initrd,
    )
    async with AsyncExitStack() as undo:
        folder = rundir.create()
        undo.callback(rundir.remove, folder)
        state_dir = prepare_state_dir(options.state_dir, folder)
        sockets = _Sockets(folder)
        undo.callback(sockets.close)
        with boot.phase("qemu"):
            device = _spawn_device(sockets)
            undo.push_async_callback(device.stop)
            machine = await Machine.spawn(spec, guard=binaries.guard(), logs=Logs.in_folder(state_dir))
            undo.push_async_callback(machine.close)
        with boot.phase("boot"):
            await _plug(machine, sockets, found)
            await machine.resume()
            calling = await _wait_for_call(sockets, machine, device, BOOT_TIMEOUT[accelerator.name])
        with boot.phase("configure"):
            client = await Client.from_socket(calling, map_error=_map_error)
            undo.push_async_callback(client.aclose)
            await SetupClient(client).configure(_configuration(options, hostname, found))
        return Running(machine, device, client, found, boot, sockets.uds, state_dir, undo.pop_all())
    raise AssertionError("the exit stack swallows nothing")


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
    """The listening sockets of one sandbox, made before anybody could want to connect to them."""

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
    fds = (sockets.vhost.fileno(), sockets.hybrid.fileno())
    arguments = ["--socket-fd", fds[0], "--uds-fd", fds[1], "--uds", sockets.uds, "--cid", command.GUEST_CID]
    return Child.spawn(
        [sys.executable, "-I", "-S", program, *map(str, arguments)],
        name="the vsock device",
        guard=binaries.guard(),
        pass_fds=fds,
    )


async def _plug(machine: Machine, sockets: _Sockets, found: Image) -> None:
    await machine.plug_vsock(sockets.vhost_path)
    if found.root is not None:
        await machine.plug_disk("root", found.root, serial=ROOT_SERIAL)


async def _wait_for_call(sockets: _Sockets, machine: Machine, device: Child, timeout: float) -> socket.socket:
    """Wait for the agent's call: it is ready. Or for the machine, the device or the time to end."""
    loop = asyncio.get_running_loop()
    sockets.control.setblocking(False)
    call = asyncio.ensure_future(loop.sock_accept(sockets.control))
    ends = {asyncio.ensure_future(machine.wait_gone()), asyncio.ensure_future(device.wait())}
    try:
        done, _ = await asyncio.wait({call, *ends}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if call in done:
            return call.result()[0]
        if not done:
            tail = machine.console.ring.tail()
            raise DeadlineExceeded(
                f"the machine did not come up within {timeout:g} s; console, last lines:\n{tail}"
            )
        if machine.child.returncode is None:
            raise Unavailable(f"the vsock device ended while the machine booted: {device.log.tail(5)}")
        raise await machine.wait_gone()
    finally:
        for task in (call, *ends):
            task.cancel()
        await asyncio.gather(call, *ends, return_exceptions=True)


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
    return from_status(error.code, error.message, tuple(error.details))
