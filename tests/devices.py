"""Devices of the tests' own, attached past the options: what arrives in the guest is all that counts here."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox_nb.vm.backend import Host
from sandbox_nb.vm.monitor import file_name

VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")


@dataclass
class Disk:
    """A raw image, as a virtio disk with this serial number."""

    path: Path
    serial: str
    readonly: bool = False
    node: str = ""
    number: int = -1
    kind = "disk"
    how = "raw"

    @property
    def source(self) -> str:
        return str(self.path)

    async def open(self, host: Host, identity: str) -> dict[str, Any]:
        self.node = f"{identity}-node"
        with self.path.open("rb" if self.readonly else "r+b") as image:
            self.number = await host.monitor.give_file(image.fileno())
        file = {"driver": "file", "filename": file_name(self.number), "read-only": self.readonly}
        node = {"driver": "raw", "node-name": self.node, "read-only": self.readonly, "file": file}
        await host.monitor.execute("blockdev-add", node)
        return {"driver": "virtio-blk-pci", "drive": self.node, "serial": self.serial}

    async def close(self, host: Host) -> None:
        await host.monitor.execute("blockdev-del", {"node-name": self.node})
        await host.monitor.take_file(self.number)


@dataclass
class Share9p:
    """A folder, served by QEMU."""

    path: Path
    tag: str
    slot: str = ""
    kind = "share"
    how = "9p"

    @property
    def source(self) -> str:
        return str(self.path)

    async def open(self, host: Host, identity: str) -> dict[str, Any]:
        self.slot = host.slots.take(self.path, readonly=False)
        return {"driver": "virtio-9p-pci", "fsdev": self.slot, "mount_tag": self.tag}

    async def close(self, host: Host) -> None:
        host.slots.release(self.slot)


@dataclass
class ShareVirtiofs:
    """A folder, served by a virtiofsd."""

    path: Path
    tag: str
    chardev: str = ""
    server: subprocess.Popen[bytes] | None = None
    kind = "share"
    how = "virtiofs"

    @property
    def source(self) -> str:
        return str(self.path)

    async def open(self, host: Host, identity: str) -> dict[str, Any]:
        socket, self.chardev = host.folder / identity, f"{identity}-chardev"
        command = [VIRTIOFSD, f"--socket-path={socket}", "-o", f"source={self.path}"]
        self.server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while not socket.exists():
            time.sleep(0.01)
        await host.monitor.connect_chardev(self.chardev, socket)
        return {"driver": "vhost-user-fs-pci", "chardev": self.chardev, "tag": self.tag}

    async def close(self, host: Host) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()


@dataclass
class Card:
    """A network card on a back end of QEMU's; ``netdev`` is that back end, without its id."""

    mac: str
    netdev: dict[str, Any] = field(default_factory=lambda: {"type": "user"})
    identity: str = ""
    kind = "nic"
    how = "user"
    source = "user"

    async def open(self, host: Host, identity: str) -> dict[str, Any]:
        self.identity = f"{identity}-net"
        await host.monitor.execute("netdev_add", {"id": self.identity, **self.netdev})
        return {"driver": "virtio-net-pci", "netdev": self.identity, "mac": self.mac}

    async def close(self, host: Host) -> None:
        await host.monitor.execute("netdev_del", {"id": self.identity})
