"""What stands behind a device on the host's side: the interface of disks, shares and network cards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sandbox_nb.vm.caps import UNCONFINED, Confinement
from sandbox_nb.vm.monitor import Monitor
from sandbox_nb.vm.slots import Slots
from sandbox_nb.vm.users import User


@dataclass(frozen=True)
class Host:
    """What the backends of one machine work with."""

    monitor: Monitor
    slots: Slots
    """Folders that 9p can share."""
    folder: Path
    """A private, short one for sockets."""
    guard: Path
    user: User | None = None
    """Whom QEMU runs as, where that is not who we are."""
    confinement: Confinement = UNCONFINED
    """What holds all that works for the machine to its caps."""


class Backend(Protocol):
    """What stands behind one device, judged and ready to be opened."""

    @property
    def kind(self) -> str:
        """``disk``, ``share`` or ``nic``."""

    @property
    def how(self) -> str:
        """What it turned out to be: ``qcow2``, ``virtiofs``, ``user`` and others."""

    @property
    def source(self) -> str:
        """What on the host it is."""

    async def open(self, host: Host, identity: str) -> dict[str, Any]:
        """Tell QEMU of it under the name ``identity``, and return the arguments of ``device_add``."""

    async def close(self, host: Host) -> None:
        """Take back what ``open`` did, as far as it got. The device is gone by then, perhaps QEMU is too."""

    def discard(self) -> None:
        """Take back what was made or opened for it before ``open``. For one that came to nothing; idempotent."""
