"""Folders of the host in the guest: through virtiofs where a virtiofsd works, else through QEMU's 9p.

Neither follows a symbolic link on the host: links are the guest's to resolve, so nothing outside the folder is
read through one. virtiofsd locks itself into the folder; QEMU opens every part of a path with O_NOFOLLOW.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox_nb.devices import Filesystem
from sandbox_nb.errors import FailedPrecondition, InvalidArgument, NotFound
from sandbox_nb.vm import virtiofsd
from sandbox_nb.vm.backend import Host
from sandbox_nb.vm.process import Child
from sandbox_nb.vm.virtiofsd import Virtiofsd

MAX_9P_TAG = 31
"""Bytes, as QEMU's 9p device takes them. virtiofs takes 36."""

_MOUNT_9P = ("trans=virtio", "version=9p2000.L", "msize=524288")


def prepare(filesystem: Filesystem) -> Share:
    """Judge a folder to be shared.

    Raises NotFound when it is not there, InvalidArgument when it is no folder or cannot be read.
    """
    given = os.fspath(filesystem.mount_path)
    what = f"share {filesystem.tag!r}: {given}"
    folder = Path(os.path.realpath(given))
    if not folder.exists():
        raise NotFound(f"{what} is not there")
    if not folder.is_dir():
        raise InvalidArgument(f"{what} is no folder: share the one it is in, or copy it to the guest")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InvalidArgument(f"{what} cannot be read by this user")
    return Share(filesystem, folder)


async def through_virtiofs(filesystem: Filesystem, folder: Path, guard: Path) -> Virtiofsd | None:
    """The virtiofsd that can share this; None when QEMU is to, through 9p. ``folder`` is a private one."""
    program = await virtiofsd.find(folder, guard)
    if program is None or (filesystem.readonly and not program.readonly and os.geteuid() != 0):
        return None
    return program


def _check_open_to_all(filesystem: Filesystem, folder: Path) -> None:
    """QEMU runs as a user who owns nothing, and through 9p the guest has QEMU's rights."""
    needed = 0o005 if filesystem.readonly else 0o007
    if any(parent.stat().st_mode & 0o001 == 0 for parent in folder.parents) or (
        folder.stat().st_mode & needed != needed
    ):
        raise FailedPrecondition(
            f"share {filesystem.tag!r}: {folder} is not open to all, and root's QEMU runs as a user of its own: "
            "give the share at the start, or install virtiofsd"
        )


@dataclass
class Share:
    """A folder ready to be shared."""

    filesystem: Filesystem
    folder: Path
    how: str = field(default="", init=False)
    """``virtiofs`` or ``9p``, once it is open; it is the type of the file system in the guest too."""
    _slot: str = field(default="", init=False)
    _daemon: Child | None = field(default=None, init=False)
    _socket: Path | None = field(default=None, init=False)
    _chardev: str = field(default="", init=False)

    kind = "share"

    @property
    def source(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def mount_options(self) -> tuple[str, ...]:
        """What the guest's mount is told, beside the type and the tag."""
        options = _MOUNT_9P if self.how == "9p" else ()
        return (*options, "ro") if self.filesystem.readonly else options

    async def open(self, host: Host, identity: str) -> dict[str, Any]:
        """See Backend. Raises ResourceExhausted when no slot for 9p is left."""
        program = await through_virtiofs(self.filesystem, host.folder, host.guard)
        if program is not None:
            self.how = "virtiofs"
            return await self._open_virtiofs(host, identity, program)
        self.how = "9p"
        return self._open_9p(host)

    async def close(self, host: Host) -> None:
        """See Backend."""
        if self._slot:
            host.slots.release(self._slot)
            self._slot = ""
        try:
            if self._chardev:
                chardev, self._chardev = self._chardev, ""
                await host.monitor.execute("chardev-remove", {"id": chardev})
        finally:
            if self._daemon is not None:
                # It ends by itself with its connection, unless nobody ever connected.
                await self._daemon.stop()
                self._daemon = None
            if self._socket is not None:
                self._socket.unlink(missing_ok=True)
                self._socket = None

    def discard(self) -> None:
        """Nothing is held before it is open."""

    async def _open_virtiofs(self, host: Host, identity: str, program: Virtiofsd) -> dict[str, Any]:
        self._socket = host.folder / identity
        readonly = self.filesystem.readonly
        self._daemon = virtiofsd.spawn(
            program, self.folder, self._socket, host.guard, readonly=readonly, confinement=host.confinement
        )
        try:
            await host.monitor.connect_chardev(identity, self._socket)
        except FailedPrecondition as error:
            words = self._daemon.log.tail(3)
            raise FailedPrecondition(
                f"share {self.filesystem.tag!r}: virtiofsd does not serve: {words}"
            ) from error
        self._chardev = identity
        return {"driver": "vhost-user-fs-pci", "chardev": identity, "tag": self.filesystem.tag}

    def _open_9p(self, host: Host) -> dict[str, Any]:
        tag = self.filesystem.tag
        if len(os.fsencode(tag)) > MAX_9P_TAG:
            raise InvalidArgument(
                f"tag={tag!r}: {MAX_9P_TAG} bytes are the most where a folder is shared through 9p, as here"
            )
        if host.user is not None:
            _check_open_to_all(self.filesystem, self.folder)
        self._slot = host.slots.take(self.folder, readonly=self.filesystem.readonly)
        return {"driver": "virtio-9p-pci", "fsdev": self._slot, "mount_tag": tag}
