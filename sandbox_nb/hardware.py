"""Disks, shares and network cards of a running machine, both halves of them.

On the host a device is judged, opened and plugged (``vm``); in the guest the agent mounts it or gives it its
addresses. Both halves are done, or neither is.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from sandbox_nb.devices import Device, Disk, Filesystem, check_apart, mount_point, named
from sandbox_nb.errors import NotFound, SandboxError
from sandbox_nb.guest.proto.disks_pb2 import FindRequest
from sandbox_nb.guest.proto.disks_ttrpc import DisksClient
from sandbox_nb.guest.proto.mount_pb2 import MountAllRequest, MountSpec, UnmountRequest
from sandbox_nb.guest.proto.mount_ttrpc import MountClient
from sandbox_nb.guest.proto.network_pb2 import ConfigureRequest, ConfigureResponse
from sandbox_nb.guest.proto.network_ttrpc import NetworkClient
from sandbox_nb.together import to_its_end, together
from sandbox_nb.ttrpc import Client
from sandbox_nb.vm.attach import prepare
from sandbox_nb.vm.backend import Backend
from sandbox_nb.vm.disks import DiskImage
from sandbox_nb.vm.machine import Machine
from sandbox_nb.vm.network import Card
from sandbox_nb.vm.shares import Share

__all__ = ["AttachedDevice", "Devices", "Hardware", "Prepared", "prepared"]


@dataclass(frozen=True)
class Prepared:
    """A device that has been judged, with what is to stand behind it."""

    device: Device
    backend: Backend

    @property
    def name(self) -> str:
        """What its user calls it."""
        return str(self.device.name)


@dataclass(frozen=True)
class AttachedDevice:
    """A device of a running machine."""

    name: str
    kind: str
    """disk, share or nic."""
    how: str
    """What it turned out to be: qcow2, virtiofs, user, …"""
    host: str
    """What on the host it is."""
    guest: str
    """Where it is in the guest: a mount point, a device, or the addresses of an interface."""


class Devices(tuple[AttachedDevice, ...]):
    """What is attached to a machine, shown as a table."""

    def __str__(self) -> str:
        names = [field.name for field in fields(AttachedDevice)]
        rows = [names, *(astuple(device) for device in self)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return "\n".join(lines) if self else "no devices"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        def row(cells: Iterable[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        head = row((field.name for field in fields(AttachedDevice)), "th")
        body = "".join(row(astuple(device), "td") for device in self)
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>" if self else "no devices"


@contextlib.asynccontextmanager
async def prepared(devices: Sequence[Device], *, sandbox: str) -> AsyncIterator[list[Prepared]]:
    """Judge devices on the host, and make what is to be made for them.

    When the block fails, what was made is removed. Raises what is wrong with the first that cannot be had.
    """
    found: list[Prepared] = []
    try:
        for device in devices:
            # To its end even when cancelled: what a thread makes meanwhile is to be known, and removed.
            preparing = asyncio.ensure_future(asyncio.to_thread(prepare, device, sandbox=sandbox))
            try:
                await asyncio.shield(preparing)
            finally:
                await to_its_end(preparing)
                if preparing.exception() is None:
                    found.append(Prepared(device, preparing.result()))
        yield found
    except BaseException:
        for one in found:
            one.backend.discard()
        raise


class Hardware:
    """The devices of one running machine, beside those it cannot be without."""

    def __init__(self, machine: Machine, client: Client, *, sandbox: str) -> None:
        self._machine = machine
        self._disks = DisksClient(client)
        self._mounts = MountClient(client)
        self._network = NetworkClient(client)
        self._sandbox = sandbox
        self._fitted: dict[str, Prepared] = {}
        self._places: dict[str, str] = {}

    async def fit(self, devices: Sequence[Prepared]) -> None:
        """Plug devices and have the guest take them into use. When one fails, none of them is there."""
        try:
            for one in devices:
                await self._machine.attach(one.name, one.backend)
                self._fitted[one.name] = one
            await self._take_into_use(devices)
        except BaseException:
            await asyncio.shield(self._take_back([one.name for one in devices if one.name in self._fitted]))
            raise

    async def attach(self, device: Device) -> AttachedDevice:
        """Attach a device, and return it as ``devices`` has it.

        Raises InvalidArgument, NotFound, AlreadyExists or FailedPrecondition for what cannot be had,
        ResourceExhausted when no port is free.
        """
        device = named(device, self._fitted)
        check_apart([*(one.device for one in self._fitted.values()), device])
        async with prepared([device], sandbox=self._sandbox) as ready:
            await self.fit(ready)
        return self._row(str(device.name))

    async def detach(self, name: str) -> None:
        """Detach a device with the guest's agreement; where it is mounted it is unmounted first.

        Raises NotFound for an unknown name, FailedPrecondition when it is in use, naming the processes.
        """
        if name not in self._fitted:
            known = ", ".join(self._fitted) or "nothing"
            raise NotFound(f"{name!r} is not attached; attached is {known}")
        await self._unmount(self._fitted[name].device)
        await self._machine.detach(name)
        self._forget(name)

    def devices(self) -> Devices:
        """What is attached, in the order it came."""
        return Devices(self._row(name) for name in self._fitted)

    async def _take_into_use(self, devices: Sequence[Prepared]) -> None:
        """Mount disks and shares, all in one call, see to disks that are not, and bring network cards up."""
        specs = [spec for one in devices if (spec := _mount_spec(one)) is not None]
        if specs:
            await self._mounts.mount_all(MountAllRequest(mounts=specs))
        works: list[Coroutine[Any, Any, None]] = []
        for one in devices:
            if isinstance(one.backend, DiskImage):
                works.append(self._find(one.name))
            elif isinstance(one.backend, Card):
                works.append(self._bring_up(one.name, one.backend))
        await together(*works)

    async def _find(self, block_id: str) -> None:
        found = await self._disks.find(FindRequest(serial=block_id))
        self._places[block_id] = " ".join([found.device, *found.mounts])

    async def _bring_up(self, name: str, card: Card) -> None:
        nic = card.nic
        request = ConfigureRequest(mac=card.mac, addr=nic.addr, gateway=nic.gateway, dns=nic.dns, name=name)
        response: ConfigureResponse = await self._network.configure(request)
        addresses = [address for address in response.interface.addresses if not address.startswith("fe80:")]
        self._places[name] = " ".join([response.interface.name, *addresses])

    async def _take_back(self, names: Sequence[str]) -> None:
        for name in names:
            with contextlib.suppress(SandboxError):
                await self._unmount(self._fitted[name].device)
            with contextlib.suppress(SandboxError):
                await self._machine.detach(name)
            self._forget(name)

    async def _unmount(self, device: Device) -> None:
        """Unmount a share from its place, a disk from wherever it is, also by its user's own doing."""
        targets: Sequence[str] = []
        if isinstance(device, Disk):
            targets = (await self._disks.find(FindRequest(serial=device.block_id))).mounts
        elif isinstance(device, Filesystem):
            targets = [device.mount_point]
        for target in targets:
            with contextlib.suppress(NotFound):  # its user has done so already
                await self._mounts.unmount(UnmountRequest(target=target))

    def _forget(self, name: str) -> None:
        self._fitted.pop(name)
        self._places.pop(name, None)

    def _row(self, name: str) -> AttachedDevice:
        one = self._fitted[name]
        place = self._places.get(name) or mount_point(one.device) or ""
        return AttachedDevice(name, one.backend.kind, one.backend.how, one.backend.source, place)


def _mount_spec(one: Prepared) -> MountSpec | None:
    target = mount_point(one.device)
    if target is None:
        return None
    if isinstance(one.backend, Share):
        return MountSpec(type=one.backend.how, source=one.name, target=target, options=one.backend.mount_options)
    readonly = isinstance(one.backend, DiskImage) and one.backend.readonly
    return MountSpec(type="auto", source=_disk_path(one.name), target=target, options=["ro"] if readonly else [])


def _disk_path(block_id: str) -> str:
    return f"/dev/disk/by-id/virtio-{block_id}"
