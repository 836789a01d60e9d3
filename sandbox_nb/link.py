"""The way between the host and one machine: what carries its vsock, ready before the machine is there.

Two kinds behind one interface. ``DeviceLink`` is our own vhost-user device process, with UNIX sockets in the run
folder: it needs no privileges and no kernel module. ``KernelLink`` is Linux's vhost-vsock, for those who may open
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import Any, Protocol

from sandbox_nb import binaries
from sandbox_nb.errors import FailedPrecondition, Unavailable
from sandbox_nb.sockets import accept
from sandbox_nb.vm import command
from sandbox_nb.vm.caps import Confinement
from sandbox_nb.vm.machine import Machine
from sandbox_nb.vm.process import Child
from sandbox_nb.vm.users import User
from sandbox_nb.vsock import connect, transport
from sandbox_nb.vsock.controller import Controller
from sandbox_nb.vsock.transport import Choice, HybridTransport, KernelTransport

__all__ = ["DeviceLink", "KernelLink", "Link", "choose", "open_link"]


class Link(Protocol):
    """The way to one machine. ``close`` is idempotent."""

    @property
    def alive(self) -> bool:
        """Whether it can carry anything."""

    async def plug(self, machine: Machine) -> None:
        """Give the machine its vsock device."""

    async def called(self) -> socket.socket:
        """Wait for the call of the agent, which says that it is ready: a connected socket."""

    def hang_up(self) -> None:
        """Take no more calls: the agent's has come, and nobody would answer what else the guest calls."""

    async def dial(self, port: int, first: bytes = b"") -> socket.socket:
        """Connect to a port of the guest and send ``first``; a connected, non-blocking socket. Raises OSError."""

    async def statistics(self) -> dict[str, Any] | None:
        """Numbers of the way and of each connection on it (``vsock/control``); None when nobody counts them."""

    async def trace(self, file: int | None, **limits: int) -> bool:
        """Write each packet to an open file, as pcapng, with None no more; whether that can be done."""

    async def wait_gone(self) -> Unavailable:
        """Wait until it is broken, perhaps for ever; return the error that tells why."""

    async def close(self) -> None:
        """Let go of everything."""


def choose(wanted: str) -> Choice:
    """Decide what carries vsock. Raises FailedPrecondition when what was asked for cannot be had."""
    try:
        return transport.choose(wanted, obstacle=transport.kernel_obstacle())
    except OSError as error:
        raise FailedPrecondition(str(error)) from error


def open_link(kind: str, folder: Path, log: Path, confinement: Confinement, user: User | None) -> Link:
    """Make a way of the kind ``choose`` decided for.

    ``folder`` takes its sockets, the file ``log`` what its process says, and ``confinement`` that process, which
    runs as ``user`` where that is not who we are.
    """
    return KernelLink() if kind == "kernel" else DeviceLink(folder, log, confinement, user)


class DeviceLink:
    """Through a vsock device process of our own.

    The sockets are made before anybody could want to connect to them. Those of the device are handed to it and not
    kept: when it dies, who dials it must be refused, not wait.
    """

    def __init__(
        self,
        folder: Path,
        log: Path,
        confinement: Confinement,
        user: User | None,
        cid: int = command.GUEST_CID,
    ) -> None:
        uds, port = folder / "v", command.rpc_port(cid)
        self._hybrid = HybridTransport(uds)
        self._vhost_path = folder / "vhost"
        with contextlib.ExitStack() as given_away:
            vhost = given_away.enter_context(_listen(self._vhost_path))
            hybrid = given_away.enter_context(_listen(uds))
            self._listening = self._hybrid.listen(port)
            ours, theirs = socket.socketpair()
            given_away.enter_context(theirs)
            self._controller = Controller(ours)
            try:
                if user is not None:
                    # The device connects to this one by its name; nobody else comes as far as the folder.
                    folder.chmod(0o711)
                    os.chown(f"{uds}_{port}", user.uid, user.gid)
                sockets = (vhost.fileno(), hybrid.fileno(), theirs.fileno())
                self.device = _spawn_device(uds, cid, sockets, log, confinement, user)
            except BaseException:
                self._controller.close()
                self._listening.close()
                raise

    @property
    def alive(self) -> bool:
        """See Link."""
        return self.device.returncode is None

    async def plug(self, machine: Machine) -> None:
        """See Link."""
        try:
            await machine.plug_vsock(self._vhost_path)
        except FailedPrecondition as error:
            # A device that cannot serve has ended, or is just about to, and knows why.
            try:
                async with asyncio.timeout(1.0):
                    gone = await self.wait_gone()
            except TimeoutError:
                raise error from None
            raise gone from error

    async def called(self) -> socket.socket:
        """See Link."""
        self._listening.setblocking(False)
        connection, _ = await accept(self._listening)
        return connection

    def hang_up(self) -> None:
        """See Link."""
        self._listening.close()

    async def dial(self, port: int, first: bytes = b"") -> socket.socket:
        """See Link."""
        return await self._hybrid.dial(port, timeout=None, first=first)

    async def statistics(self) -> dict[str, Any] | None:
        """See Link. Raises Unavailable when the device is gone."""
        numbers: dict[str, Any] = await self._ask("statistics")
        return numbers

    async def trace(self, file: int | None, **limits: int) -> bool:
        """See Link. Raises Unavailable without a device."""
        await (self._ask("trace") if file is None else self._ask("trace", descriptor=file, **limits))
        return True

    async def _ask(self, what: str, **arguments: Any) -> Any:
        try:
            return await self._controller.ask(what, **arguments)
        except ConnectionError as error:
            raise Unavailable(f"the vsock device is gone: {error}") from error
        except OSError as error:
            raise FailedPrecondition(f"the vsock device refused: {error}") from error

    async def wait_gone(self) -> Unavailable:
        """See Link."""
        status = await self.device.wait()
        words = self.device.log.tail(5) or f"it ended with status {status}"
        return await self.device.end(f"the vsock device is gone, and with it the way to the machine: {words}")

    async def close(self) -> None:
        """See Link."""
        self.hang_up()
        try:
            await self.device.stop()
        finally:
            self._controller.close()


class KernelLink:
    """Through the host kernel's vhost-vsock.

    Its ports are one space for all guests and programs of the host, so the agent calls the port that has the
    number of its context id, which no other guest has.
    """

    def __init__(self) -> None:
        self._fd, self.cid = transport.reserve_cid()
        self._kernel = KernelTransport(self.cid)
        try:
            self._listening = self._kernel.listen(command.rpc_port(self.cid))
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def alive(self) -> bool:
        """See Link."""
        return self._fd >= 0

    async def plug(self, machine: Machine) -> None:
        """See Link."""
        await machine.plug_kernel_vsock(self._fd, self.cid)

    async def called(self) -> socket.socket:
        """See Link."""
        self._listening.setblocking(False)
        while True:
            sock, address = await accept(self._listening)
            if self._kernel.is_guest(address):
                return sock
            sock.close()

    def hang_up(self) -> None:
        """See Link."""
        self._listening.close()

    async def dial(self, port: int, first: bytes = b"") -> socket.socket:
        """See Link."""
        return await self._kernel.dial(port, timeout=None, first=first)

    async def statistics(self) -> None:
        """See Link. The kernel tells nobody."""

    async def trace(self, file: int | None, **limits: int) -> bool:
        """See Link. The kernel's packets are for its own monitor, vsockmon, which takes root."""
        return False

    async def wait_gone(self) -> Unavailable:
        """See Link. The kernel stays."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody sets it")

    async def close(self) -> None:
        """See Link."""
        self.hang_up()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _listen(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock


def _spawn_device(
    uds: Path,
    cid: int,
    sockets: tuple[int, int, int],
    log: Path,
    confinement: Confinement,
    user: User | None,
) -> Child:
    """Start the vsock device, by path and without site: 17 ms instead of 37.

    It becomes ``user`` itself, once it is loaded: Python may lie where that one may not look.
    """
    vhost, hybrid, control = sockets
    becoming = [] if user is None else ["--uid", str(user.uid), "--gid", str(user.gid)]
    program = Path(connect.__file__).with_name("__main__.py")
    log_file = log.open("wb", buffering=0)
    with contextlib.ExitStack() as undo:
        undo.callback(log_file.close)
        child = Child.spawn(
            [
                *(sys.executable, "-I", "-S", program),
                *("--socket-fd", str(vhost), "--uds-fd", str(hybrid), "--uds", uds),
                *("--cid", str(cid), "--control-fd", str(control)),
                *becoming,
            ],
            name="the vsock device",
            guard=binaries.guard(),
            pass_fds=sockets,
            log_file=log_file,
            confinement=confinement,
        )
        undo.pop_all()
    return child
