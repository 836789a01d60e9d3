"""Disks: from what their user says to the block nodes QEMU is told to open, and no others.

``prepare`` looks at the image, and makes it where that was asked for. It blocks, so it is called in a thread.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from sandbox_nb.devices import Disk, DiskFlags
from sandbox_nb.errors import FailedPrecondition, InvalidArgument, NotFound
from sandbox_nb.vm import images, making, users
from sandbox_nb.vm.backend import Host
from sandbox_nb.vm.images import BadImageError, Facts
from sandbox_nb.vm.making import Made
from sandbox_nb.vm.monitor import Monitor, file_name
from sandbox_nb.vm.users import User

SECTOR = images.SECTOR


@dataclass(frozen=True)
class Layer:
    """An image and what is beneath it, each by the very file that QEMU is to open."""

    path: Path
    format: str
    data_file: Path | None = None
    backing: Layer | None = None
    extents: tuple[Path, ...] = ()
    """Further files of a VMDK. QEMU opens them itself, by the names that the first file says."""

    @property
    def by_name(self) -> bool:
        """Whether QEMU has to open files of it by their names, and cannot be given them."""
        return bool(self.extents) or (self.backing is not None and self.backing.by_name)

    def files(self, needed: int) -> Iterator[tuple[Path, int]]:
        """All its files, each with what QEMU does with it: of os.R_OK and os.W_OK, ``needed`` for the top."""
        for path in (self.path, *self.extents, *([self.data_file] if self.data_file else [])):
            yield path, needed
        if self.backing is not None:
            yield from self.backing.files(os.R_OK)

    def node(self, *, readonly: bool) -> dict[str, Any]:
        """The arguments of ``blockdev-add`` without a name; nothing is left for QEMU to look up in a header."""
        node: dict[str, Any] = {
            "driver": self.format,
            "read-only": readonly,
            "discard": "unmap",
            "file": _file_node(self.path, readonly=readonly),
        }
        if self.format != "raw":
            node["backing"] = None if self.backing is None else self.backing.node(readonly=True)
        if self.data_file is not None:
            node["data-file"] = _file_node(self.data_file, readonly=readonly)
        return node


@dataclass
class DiskImage:
    """An image ready to be plugged. ``discard`` it when it is not: what was made for it is removed."""

    disk: Disk
    layer: Layer
    virtual_size: int
    readonly: bool
    _made: Made | None = None
    _node: str = field(default="", init=False)
    _files: list[int] = field(default_factory=list, init=False)

    kind = "disk"

    @property
    def how(self) -> str:
        """The format: ``raw``, ``qcow2`` or ``vmdk``."""
        return self.layer.format

    @property
    def source(self) -> str:
        """The image."""
        return os.fspath(self.disk.mount_path)

    async def open(self, host: Host, identity: str) -> dict[str, Any]:
        """See Backend. Raises FailedPrecondition when another machine has the image open."""
        node = blockdev(self, identity)
        if self.layer.by_name and host.user is not None:
            self._check_open_to(host.user)
        try:
            if not self.layer.by_name:
                await self._give_files(node, host.monitor)
            await host.monitor.execute("blockdev-add", node)
        except FailedPrecondition as error:
            await self._take_files(host.monitor)
            if re.search(r'Failed to get (shared )?"\w+" lock', str(error)):
                raise FailedPrecondition(
                    f"disk {self.disk.block_id!r}: {self.source} is in use, by another machine or by this; "
                    "only a disk that all use read-only (ro, DiskFlags.READONLY) can be shared"
                ) from error
            remedy = f"; {_one_file(self.layer.path)}" if self.layer.by_name else ""
            raise FailedPrecondition(f"disk {self.disk.block_id!r}: {self.source}: {error}{remedy}") from error
        self._node = identity
        # A full disk of the host is an error of the guest's disk; QEMU would pause the guest instead.
        errors = {"werror": "report", "rerror": "report"}
        return {"driver": "virtio-blk-pci", "drive": identity, "serial": self.disk.block_id, **errors}

    async def close(self, host: Host) -> None:
        """See Backend."""
        if self._node:
            node, self._node = self._node, ""
            await host.monitor.execute("blockdev-del", {"node-name": node})
        await self._take_files(host.monitor)

    def discard(self) -> None:
        """Remove what ``prepare`` made. Idempotent."""
        if self._made is not None:
            self._made.undo()
            self._made = None

    def _check_open_to(self, user: User) -> None:
        """QEMU is to open the files by itself, as somebody else. Raises FailedPrecondition when it may not."""
        for path, needed in self.layer.files(os.R_OK if self.readonly else os.R_OK | os.W_OK):
            if not users.may(user, path, needed):
                raise FailedPrecondition(
                    f"disk {self.disk.block_id!r}: {self.source} is a VMDK of several files, which QEMU opens by "
                    f"their names; root's QEMU runs as a user of its own, who may not open {path}: "
                    f"{_one_file(self.layer.path)}"
                )

    async def _give_files(self, node: dict[str, Any], monitor: Monitor) -> None:
        """Open what ``node`` is made of and hand it over: QEMU opens nothing else, and may not have the right."""
        what = f"disk {self.disk.block_id!r}: {self.source}"
        for file in _file_nodes(node):
            with _opened(what, Path(file["filename"]), readonly=file["read-only"]) as image:
                self._files.append(await monitor.give_file(image.fileno()))
            file["filename"] = file_name(self._files[-1])

    async def _take_files(self, monitor: Monitor) -> None:
        while self._files:
            await monitor.take_file(self._files.pop())


def _one_file(path: Path) -> str:
    """What to do about a VMDK of several files."""
    return f"make it one file by qemu-img convert -O qcow2 {shlex.quote(str(path))} {path.stem}.qcow2"


def _file_nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes beneath that are files."""
    if node["driver"] == "file":
        yield node
    for beneath in node.values():
        if isinstance(beneath, dict):
            yield from _file_nodes(beneath)


def blockdev(image: DiskImage, node_name: str) -> dict[str, Any]:
    """The arguments of ``blockdev-add`` for an image."""
    return {"node-name": node_name, **image.layer.node(readonly=image.readonly)}


def prepare(disk: Disk) -> DiskImage:
    """Look at a disk's image, and make it, or a file system on it, where that is asked for. Blocks.

    Raises NotFound when it is missing, InvalidArgument for what cannot be a disk or names files that are not
    allowed, FailedPrecondition when it cannot be made.
    """
    path = Path(os.path.abspath(disk.mount_path))  # noqa: PTH100 - as given, for what is beside it; links stay
    what = f"disk {disk.block_id!r}: {os.fspath(disk.mount_path)}"
    made = making.create(what, path, disk) if disk.size is not None and not os.path.lexists(path) else None
    try:
        allowed = {os.path.realpath(other): Path(os.path.realpath(other)) for other in disk.backing}
        facts, layer = _look(what, path, allowed, readonly=disk.readonly)
        _check_told(what, disk, facts)
        if disk.format is not None and made is None:
            made = making.format_existing(what, path, disk.format, facts)
    except BaseException:
        if made is not None:
            made.undo()
        raise
    return DiskImage(disk, layer, facts.virtual_size, disk.readonly, made)


def _check_told(what: str, disk: Disk, facts: Facts) -> None:
    """What the user said of the image is so."""
    if disk.flags & DiskFlags.VMDK and facts.format != "vmdk":
        raise InvalidArgument(f"{what} is {facts.format}, flag VMDK says otherwise; leave it out")
    if facts.virtual_size < SECTOR:
        raise InvalidArgument(f"{what} holds {facts.virtual_size} bytes, less than a sector: no disk")
    if disk.size_bytes not in (None, facts.virtual_size):
        raise InvalidArgument(
            f"{what} is there and holds {facts.virtual_size} bytes, size={disk.size!r} says {disk.size_bytes}; "
            "leave size out, or name another file"
        )


def _look(
    what: str, path: Path, allowed: dict[str, Path], *, readonly: bool, as_format: str | None = None
) -> tuple[Facts, Layer]:
    """Read an image and all beneath it. ``allowed`` holds the further files that may be opened, once each."""
    with _opened(what, path, readonly=readonly) as image:
        try:
            facts = images.read(image) if as_format != "raw" else Facts("raw", os.fstat(image.fileno()).st_size)
        except BadImageError as error:
            raise InvalidArgument(f"{what}: {error}") from error
    if as_format not in (None, facts.format):
        raise InvalidArgument(f"{what}: {path} is {facts.format}, the image on it says {as_format}")
    extents = []
    for extent in facts.extents:
        extents.append(other := _named(what, path, "extent", extent.name, allowed))
        with _opened(what, other, readonly=readonly) as file:
            if file.seek(0, os.SEEK_END) < extent.size:
                raise InvalidArgument(f"{what} is a truncated VMDK: {other} is shorter than {extent.size} bytes")
    data_file = backing = None
    if facts.data_file is not None:
        data_file = _named(what, path, "data file", facts.data_file, allowed)
    if facts.backing is not None:
        beneath = _named(what, path, "backing file", facts.backing, allowed)
        _, backing = _look(what, beneath, allowed, readonly=True, as_format=facts.backing_format)
    return facts, Layer(path, facts.format, data_file, backing, tuple(extents))


def _named(what: str, image: Path, role: str, name: str, allowed: dict[str, Path]) -> Path:
    """The file that an image names, which must be an allowed one, and is used up with that."""
    found = None
    # json:…, nbd://…: QEMU would take it for more than a path. No path has a NUL.
    if name and "\0" not in name and not re.match(r"[^/]*:", name):
        found = allowed.pop(os.path.realpath(image.parent / name), None)
    if found is None:
        raise InvalidArgument(
            f"{what} names {name!r} as its {role}, which is not opened unless it is a file listed in backing=; "
            "qemu-img convert makes one image of all"
        )
    return found


def _opened(what: str, path: Path, *, readonly: bool) -> BinaryIO:
    """Open a regular file as QEMU will. Raises NotFound, InvalidArgument."""
    which = what if what.endswith(f": {path}") else f"{what}: {path}"
    try:
        # Not to wait for a FIFO's other end.
        fd = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"{which} is not there; size= makes a missing image") from error
    except IsADirectoryError as error:
        raise InvalidArgument(f"{what} is a folder; share it as a Filesystem, or name a disk image") from error
    except OSError as error:
        readable = not readonly and os.access(path, os.R_OK)
        remedy = "; read-only it can be (ro, DiskFlags.READONLY)" if readable else ""
        raise InvalidArgument(f"{which} cannot be opened: {error.strerror}{remedy}") from error
    image = os.fdopen(fd, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        image.close()
        raise InvalidArgument(f"{which} is no regular file; name a disk image")
    return image


def _file_node(path: Path, *, readonly: bool) -> dict[str, Any]:
    return {
        "driver": "file",
        "filename": str(path),
        "read-only": readonly,
        # Or a disk that may not be written to would quietly become read-only.
        "auto-read-only": False,
        "locking": "on",
        "discard": "unmap",
    }
