"""PCIe root ports: which are free, what sits in the others, and how it leaves.

A device arrives by ``device_add`` and leaves with the guest's agreement: ``device_del`` asks, the event
DEVICE_DELETED tells that the guest let go. For a virtio device two of these come, one without ``data.device`` for
the part behind the PCI function; the one that names the device is the end of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from sandbox_nb.errors import DeadlineExceeded, FailedPrecondition, NotFound, ResourceExhausted

Execute: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[Any]]
"""Sends a QMP command with its arguments and returns the answer."""


class RootPorts:
    """The root ports of one machine. ``execute`` speaks to its QEMU."""

    def __init__(self, count: int, execute: Execute) -> None:
        self._count = count
        self._execute = execute
        self._free = [f"port{index}" for index in range(count)]
        self._taken: dict[str, str] = {}
        self._gone: dict[str, asyncio.Future[None]] = {}

    async def plug(self, identity: str, properties: dict[str, Any]) -> str:
        """Plug a device, its driver among ``properties``, into a free port and return the port's name.

        Raises ResourceExhausted when none is free, FailedPrecondition when QEMU refuses the device.
        """
        if not self._free:
            raise ResourceExhausted(
                f"no root port is free: a machine has {self._count}, of which vsock takes one, and a root file "
                "system that is a disk another; detach a device first"
            )
        port = self._free.pop(0)
        try:
            await self._execute("device_add", {"id": identity, "bus": port, **properties})
        except BaseException:
            self._free.insert(0, port)
            raise
        self._taken[identity] = port
        self._gone[identity] = asyncio.get_running_loop().create_future()
        return port

    async def unplug(self, identity: str, timeout: float) -> None:
        """Take a device out and free its port, once the guest let go of it. May be called again.

        Raises DeadlineExceeded when the guest does not within ``timeout`` seconds: the device is still there.
        """
        gone = self._gone[identity]
        if not gone.done():
            await self._ask(identity)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(gone)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the guest did not let go of the device within {timeout:g} s, and it is still attached; "
                "end what uses it there and try again"
            ) from None
        del self._gone[identity]
        self._free.append(self._taken.pop(identity))

    def deleted(self, identity: str) -> None:
        """QEMU says that a device is gone."""
        gone = self._gone.get(identity)
        if gone is not None and not gone.done():
            gone.set_result(None)

    def ended(self) -> None:
        """QEMU is gone, and every device with it: nobody need wait."""
        for identity in self._gone:
            self.deleted(identity)

    async def _ask(self, identity: str) -> None:
        try:
            await self._execute("device_del", {"id": identity})
        except NotFound:  # the guest was faster: it had switched the slot off
            self.deleted(identity)
        except FailedPrecondition as error:
            # Asked before, and still under way: the answer to that will do.
            if "in the process of unplug" not in str(error):
                raise
