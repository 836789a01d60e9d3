"""Disks, shares and network cards of a running machine: the one way they come, at its start and later, and go.

Each is a backend, what stands behind the device on the host's side, and a device in a root port: both are there,
or neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from sandbox_nb.devices import Device, Disk, Filesystem
from sandbox_nb.errors import AlreadyExists, DeadlineExceeded, NotFound, Unavailable
from sandbox_nb.vm import disks, network, shares
from sandbox_nb.vm.backend import Backend, Host
from sandbox_nb.vm.ports import RootPorts

UNPLUG_TIMEOUT = 15.0
"""Seconds the guest gets to let go of a device. It takes 0.1 s with ACPI's hot-plug, up to 6 s with PCIe's own."""

TAKE_BACK_TIMEOUT = 1.0


def prepare(device: Device, *, sandbox: str) -> Backend:
    """Look at what stands behind a device: the image, the folder, the socket. Blocks; call it in a thread.

    ``device`` has a name, as ``devices.named`` gives it. What is prepared and not attached is to be discarded.

    Raises NotFound, InvalidArgument or FailedPrecondition for what cannot be attached; nothing is left then.
    """
    if isinstance(device, Disk):
        return disks.prepare(device)
    if isinstance(device, Filesystem):
        return shares.prepare(device)
    return network.prepare(device, sandbox=sandbox)


@dataclass(frozen=True)
class Attached:
    """A device that is plugged."""

    name: str
    """What its user calls it: block id, tag, or name of the network card."""
    kind: str
    """disk, share or nic."""
    how: str
    """What it turned out to be: qcow2, virtiofs, user, …"""
    source: str
    """What on the host it is."""
    port: str
    """The root port it sits in."""
    identity: str
    """Its id in QEMU."""
    backend: Backend = field(repr=False)


class Attachments:
    """What is attached to one machine, by name."""

    def __init__(self, host: Host, ports: RootPorts) -> None:
        self._host = host
        self._ports = ports
        self._numbers = itertools.count()
        # None while it comes or goes.
        self._attached: dict[str, Attached | None] = {}

    @property
    def devices(self) -> list[Attached]:
        """What is attached, in the order it came."""
        return [found for found in self._attached.values() if found is not None]

    async def attach(self, name: str, backend: Backend) -> Attached:
        """Open a backend and plug its device. When that fails or is cancelled, neither is there.

        Raises AlreadyExists when the name is taken, ResourceExhausted when no root port is free, and what the
        backend raises.
        """
        if name in self._attached:
            raise AlreadyExists(f"{name!r} is attached already: detach it first, or give another name")
        self._attached[name] = None  # nobody else may take the name meanwhile
        plugging = asyncio.ensure_future(self._plug(name, backend))
        try:
            return await asyncio.shield(plugging)
        except asyncio.CancelledError:
            await asyncio.wait({plugging})  # what QEMU was told must be known before it is taken back
            if plugging.exception() is None:
                # A guest that does not run yet cannot agree to that; then it stays until the machine ends.
                with contextlib.suppress(DeadlineExceeded):
                    await self.detach(name, timeout=TAKE_BACK_TIMEOUT)
            raise

    async def detach(self, name: str, *, timeout: float = UNPLUG_TIMEOUT) -> None:
        """Take a device out with the guest's agreement, then close its backend.

        Raises NotFound for an unknown name, DeadlineExceeded when the guest does not let go within ``timeout``
        seconds: it is still attached then.
        """
        found = self._attached.get(name)
        if found is None:
            known = ", ".join(device.name for device in self.devices) or "nothing"
            raise NotFound(f"{name!r} is not attached; attached is {known}")
        self._attached[name] = None  # it leaves once
        try:
            await self._ports.unplug(found.identity, timeout)
        except BaseException:
            self._attached[name] = found
            raise
        del self._attached[name]
        await asyncio.shield(_close_backend(found.backend, self._host))

    async def close(self) -> None:
        """Let go of what the backends hold on the host, after QEMU's end."""
        async with AsyncExitStack() as undo:
            for device in self.devices:
                undo.push_async_callback(_close_backend, device.backend, self._host)
            self._attached.clear()

    async def _plug(self, name: str, backend: Backend) -> Attached:
        identity = f"{backend.kind}{next(self._numbers)}"
        async with AsyncExitStack() as undo:
            undo.callback(self._attached.pop, name)
            undo.push_async_callback(_close_backend, backend, self._host)
            properties = await backend.open(self._host, identity)
            port = await self._ports.plug(identity, properties)
            undo.pop_all()
        attached = Attached(name, backend.kind, backend.how, backend.source, port, identity, backend)
        self._attached[name] = attached
        return attached


async def _close_backend(backend: Backend, host: Host) -> None:
    with contextlib.suppress(Unavailable):  # with QEMU gone there is nothing left to tell it
        await backend.close(host)
