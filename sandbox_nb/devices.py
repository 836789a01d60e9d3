"""Devices of a machine as its user says them, and what is wrong with them.

Names and meanings of ``Disk``, ``Filesystem``, ``NIC``, ``DiskFlags`` and ``NetworkMode`` follow the reference
interface (containerd's nerdbox, package ``sandbox``); keyword arguments are ours.

Only what can be judged without looking at the host is judged here, by each device's ``check``.
"""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import os
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TypeAlias

from sandbox_nb.errors import AlreadyExists, InvalidArgument

MAX_BLOCK_ID = 20
"""Bytes. VIRTIO 1.2, 5.2.6: VIRTIO_BLK_T_GET_ID answers a serial number of 20 bytes."""

MAX_TAG = 36
"""Bytes. VIRTIO 1.2, 5.11.4: the tag of a virtiofs device. 9p takes less, which is judged where 9p is chosen."""

MAX_INTERFACE = 15
"""Bytes. Linux's IFNAMSIZ, less the NUL."""

MAX_DNS = 3
"""Servers that a resolver asks; resolv.conf(5), MAXNS."""

FORMATS = ("ext4",)
"""File systems that ``Disk.format`` can make."""

SECTOR = 512

VNET_HDR = 2
"""A flag of the reference interface that cannot be honoured."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MAX_SIZE = 1 << 60


class DiskFlags(enum.IntFlag):
    """How a disk is opened."""

    NONE = 0
    READONLY = 1
    VMDK = 2


class NetworkMode(enum.IntEnum):
    """How frames travel over a NIC's UNIX socket: one a datagram, or each behind its length on a stream."""

    UNIXGRAM = 0
    UNIXSTREAM = 1


class NetworkFlags(enum.IntFlag):
    """What is done with a NIC's socket before frames travel over it."""

    NONE = 0
    VFKIT = 1
    """Send ``VFKT`` first, as gvproxy's vfkit mode wants."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk image of the host as a virtio block device.

    ``block_id`` is its serial number in the guest (``/dev/disk/by-id/virtio-<block_id>``), ``mount_path`` the
    image on the host: raw, qcow2 or VMDK, told by its content.

    ``target`` is where the guest mounts it. ``size`` (``"2G"``, or bytes) makes the image when it is missing,
    ``format="ext4"`` a file system on an empty one. Files that the image itself names, its backing file above
    all, are opened only when they are listed in ``backing``.
    """

    block_id: str
    mount_path: str | os.PathLike[str]
    flags: DiskFlags = DiskFlags.NONE
    _: KW_ONLY
    target: str | None = None
    format: str | None = None
    size: int | str | None = None
    backing: Sequence[str | os.PathLike[str]] = ()

    @property
    def name(self) -> str:
        """What ``detach`` calls it."""
        return self.block_id

    @property
    def readonly(self) -> bool:
        """Whether the guest may not write to it."""
        return bool(self.flags & DiskFlags.READONLY)

    @property
    def size_bytes(self) -> int | None:
        """``size`` in bytes."""
        return None if self.size is None else _bytes_of(self.size)

    def check(self) -> None:
        """Raise InvalidArgument for what cannot be meant."""
        _check_name("block_id", self.block_id, MAX_BLOCK_ID, "a virtio serial number")
        _check_host_path(f"disk {self.block_id!r}: mount_path", self.mount_path)
        _check_bits(f"disk {self.block_id!r}: flags", self.flags, DiskFlags)
        if self.target is not None:
            _check_target(f"disk {self.block_id!r}", self.target)
        if self.size is not None:
            _bytes_of(self.size)
        if isinstance(self.backing, (str, os.PathLike)):
            raise InvalidArgument(f"disk {self.block_id!r}: backing={self.backing!r}: a list of paths is needed")
        for path in self.backing:
            _check_host_path(f"disk {self.block_id!r}: backing", path)
        self._check_making()

    def _check_making(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise InvalidArgument(
                f"disk {self.block_id!r}: format={self.format!r}: {' or '.join(FORMATS)} can be made"
            )
        for name in ("size", "format"):
            if getattr(self, name) is not None and self.readonly:
                raise InvalidArgument(f"disk {self.block_id!r}: {name}= makes something, READONLY forbids it")
            if getattr(self, name) is not None and self.flags & DiskFlags.VMDK:
                raise InvalidArgument(f"disk {self.block_id!r}: {name}= makes a qcow2, flag VMDK says otherwise")


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A folder of the host (``mount_path``), shared with the guest under ``tag``.

    ``target`` is where the guest mounts it; ``/mnt/<tag>`` when not said.
    """

    tag: str
    mount_path: str | os.PathLike[str]
    readonly: bool = False
    _: KW_ONLY
    target: str | None = None

    @property
    def name(self) -> str:
        """What ``detach`` calls it."""
        return self.tag

    @property
    def mount_point(self) -> str:
        """Where it appears in the guest."""
        return f"/mnt/{self.tag}" if self.target is None else self.target

    def check(self) -> None:
        """Raise InvalidArgument for what cannot be meant."""
        _check_name("tag", self.tag, MAX_TAG, "a virtiofs tag")
        _check_host_path(f"share {self.tag!r}: mount_path", self.mount_path)
        if not isinstance(self.readonly, bool):
            raise InvalidArgument(f"share {self.tag!r}: readonly={self.readonly!r}: True or False is needed")
        if self.target is not None:
            _check_target(f"share {self.tag!r}", self.target)


@dataclass(frozen=True, slots=True)
class NIC:
    """A network card whose frames go through the UNIX socket ``endpoint`` of the host.

    ``features`` is a mask of virtio-net feature bits to offer (0: what QEMU offers by default), ``flags`` of
    NetworkFlags. ``addr`` is ``"dhcp"``, ``"none"``, or an address with its prefix as in ``"10.0.0.2/24"``.
    """

    endpoint: str | os.PathLike[str]
    mac: str | None = None
    mode: NetworkMode = NetworkMode.UNIXGRAM
    features: int = 0
    flags: int = 0
    _: KW_ONLY
    name: str | None = None
    addr: str = "dhcp"
    gateway: str | None = None
    dns: Sequence[str] = ()

    def check(self) -> None:
        """Raise InvalidArgument for what cannot be meant."""
        _check_card(self)
        what = _card(self)
        _check_host_path(f"{what}: endpoint", self.endpoint)
        if self.mode not in tuple(NetworkMode):
            modes = " or ".join(f"{mode.name} ({mode.value})" for mode in NetworkMode)
            raise InvalidArgument(f"{what}: mode={self.mode!r}: {modes} is needed")
        if isinstance(self.flags, int) and self.flags & VNET_HDR:
            raise InvalidArgument(f"{what}: flag VNET_HDR ({VNET_HDR}): QEMU's sockets carry no vnet header")
        _check_bits(f"{what}: flags", self.flags, NetworkFlags)
        if self.flags & NetworkFlags.VFKIT and self.mode != NetworkMode.UNIXGRAM:
            raise InvalidArgument(f"{what}: flag VFKIT goes with mode UNIXGRAM")
        if not _is_int(self.features) or self.features < 0:
            raise InvalidArgument(f"{what}: features={self.features!r}: a mask of feature bits is needed")


@dataclass(frozen=True, slots=True)
class UserNIC:
    """A network card on QEMU's user-mode network: no root, outgoing connections through the host.

    ``forward`` maps ports of the host's loopback to ports of the guest, ``restrict`` cuts the guest off from
    everything but these. The addresses are those that QEMU's network gives, without asking by DHCP.
    """

    forward: Mapping[int, int] = field(default_factory=dict)
    restrict: bool = False
    _: KW_ONLY
    name: str | None = None
    mac: str | None = None
    addr: str = "10.0.2.15/24"
    gateway: str | None = "10.0.2.2"
    dns: Sequence[str] = ("10.0.2.3",)

    def check(self) -> None:
        """Raise InvalidArgument for what cannot be meant."""
        _check_card(self)
        what = _card(self)
        if not isinstance(self.forward, Mapping):
            raise InvalidArgument(
                f"{what}: forward={self.forward!r}: host ports with their guest ports are needed"
            )
        for port in (*self.forward.keys(), *self.forward.values()):
            if not _is_int(port) or not 1 <= port <= 65535:
                raise InvalidArgument(f"{what}: forward has port {port!r}; ports are numbers from 1 to 65535")
        if not isinstance(self.restrict, bool):
            raise InvalidArgument(f"{what}: restrict={self.restrict!r}: True or False is needed")


Device: TypeAlias = Disk | Filesystem | NIC | UserNIC


def named(device: Device, taken: Collection[str]) -> Device:
    """Check a device and return it with a name that is not among ``taken``.

    A NIC without one becomes the first free of net0, net1, …

    Raises InvalidArgument for what cannot be meant, AlreadyExists when the name is taken.
    """
    if not isinstance(device, (Disk, Filesystem, NIC, UserNIC)):
        raise InvalidArgument(f"{device!r} is no device: a Disk, Filesystem, NIC or UserNIC is needed")
    device.check()
    if device.name is None:
        assert isinstance(device, (NIC, UserNIC))
        free = next(name for name in map("net{}".format, range(len(taken) + 1)) if name not in taken)
        return dataclasses.replace(device, name=free)
    if device.name in taken:
        raise AlreadyExists(
            f"{device.name!r} is taken: disks, shares and network cards of a machine need different names"
        )
    return device


def mount_point(device: Device) -> str | None:
    """Where the guest mounts a device, if it does."""
    if isinstance(device, Filesystem):
        return device.mount_point
    return device.target if isinstance(device, Disk) else None


def check_apart(devices: Iterable[Device]) -> None:
    """Raise AlreadyExists when two devices would be mounted at one place or have one MAC address."""
    taken: dict[str, Device] = {}
    for device in devices:
        where = mount_point(device)
        mac = device.mac if isinstance(device, (NIC, UserNIC)) else None
        for what in filter(None, (where and posixpath.normpath(where), mac and mac.lower())):
            if (other := taken.setdefault(what, device)) is not device:
                raise AlreadyExists(f"{device.name!r} and {other.name!r} would both have {what}")


def _bytes_of(size: int | str) -> int:
    """A size as bytes: a number, or one with K, M, G or T behind it. Raises InvalidArgument."""
    count = size if _is_int(size) else None
    if isinstance(size, str) and (found := re.fullmatch(r"([0-9]{1,19})([KMGT]?)", size)):
        count = int(found[1]) * _UNITS[found[2]]
    if not isinstance(count, int) or not SECTOR <= count <= _MAX_SIZE or count % SECTOR:
        raise InvalidArgument(
            f"size={size!r}: bytes, or a number with K, M, G or T as in '2G', is needed; a multiple of {SECTOR}"
        )
    return count


def _check_name(field_name: str, name: object, longest: int, what: str) -> None:
    if not isinstance(name, str) or not 1 <= len(os.fsencode(name)) <= longest:
        raise InvalidArgument(f"{field_name}={name!r}: {what} has 1 to {longest} bytes")
    if not name.isprintable() or "/" in name or " " in name or name in (".", ".."):
        raise InvalidArgument(f"{field_name}={name!r}: it becomes a file name in the guest: no spaces, no slashes")


def _check_host_path(what: str, path: object) -> None:
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path) or "\0" in os.fspath(path):
        raise InvalidArgument(f"{what}={path!r}: a path on the host is needed")


def _check_target(what: str, target: object) -> None:
    if (
        not isinstance(target, str)
        or not target.startswith("/")
        or "\0" in target
        or {".", ".."} & set(target.split("/"))
        or not target.strip("/")
    ):
        raise InvalidArgument(f"{what}: target={target!r}: an absolute path in the guest below / is needed")


def _check_bits(what: str, value: object, flags: type[enum.IntFlag]) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgument(f"{what}={value!r}: a mask of {flags.__name__} is needed")
    known = sum(flag.value for flag in flags)
    if unknown := int(value) & ~known:
        names = ", ".join(f"{flag.name} = {flag.value}" for flag in flags if flag)
        raise InvalidArgument(f"{what}={int(value)}: {hex(unknown)} is unknown; there is {names}")


def _card(nic: NIC | UserNIC) -> str:
    return type(nic).__name__ if nic.name is None else f"{type(nic).__name__} {nic.name!r}"


def _check_card(nic: NIC | UserNIC) -> None:
    """What both kinds of network card have."""
    if nic.name is not None:
        _check_name("name", nic.name, MAX_INTERFACE, "the name of a network interface")
        if ":" in nic.name:
            raise InvalidArgument(f"name={nic.name!r}: the name of a network interface has no colon")
    if nic.mac is not None:
        _check_mac(_card(nic), nic.mac)
    _check_addresses(_card(nic), nic)


def _check_mac(what: str, mac: object) -> None:
    if not isinstance(mac, str) or not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", mac):
        raise InvalidArgument(f"{what}: mac={mac!r}: six bytes are needed, as in '02:00:00:00:00:01'")
    if int(mac[:2], 16) & 1:
        raise InvalidArgument(f"{what}: mac={mac!r} is a multicast address: the first byte must be even")
    if not int(mac.replace(":", ""), 16):
        raise InvalidArgument(f"{what}: mac={mac!r} is nobody's address")


def _check_addresses(what: str, nic: NIC | UserNIC) -> None:
    family = 0
    if nic.addr not in ("dhcp", "none"):
        try:
            family = ipaddress.ip_interface(nic.addr if "/" in nic.addr else "").version
        except (TypeError, ValueError) as error:
            raise InvalidArgument(
                f"{what}: addr={nic.addr!r}: 'dhcp', 'none' or an address like '10.0.0.2/24' is needed"
            ) from error
    if nic.gateway is not None:
        version = _version(f"{what}: gateway", nic.gateway)
        if family and version != family:
            raise InvalidArgument(f"{what}: gateway={nic.gateway!r} is of another family than addr={nic.addr!r}")
    if isinstance(nic.dns, str) or len(nic.dns) > MAX_DNS:
        raise InvalidArgument(f"{what}: dns={nic.dns!r}: a list of at most {MAX_DNS} addresses is needed")
    for server in nic.dns:
        _version(f"{what}: dns", server)


def _version(what: str, address: object) -> int:
    """4 or 6. Raises InvalidArgument for what is no address."""
    try:
        return ipaddress.ip_address(address if isinstance(address, str) else "").version
    except ValueError as error:
        raise InvalidArgument(f"{what}={address!r} is no address") from error


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
