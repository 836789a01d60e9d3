"""From options to a configured machine: the one place that joins vm, vsock, ttrpc and guest.

A launch either returns a machine that has answered Setup/Configure and has its devices, or raises and has left
nothing behind.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sandbox_nb import binaries, hardware, plan, rundir, standby, ttrpc
from sandbox_nb.boot import Boot
from sandbox_nb.bringup import ROOT_SERIAL, Called, bring_up, ended_on_failure
from sandbox_nb.devices import Filesystem
from sandbox_nb.errors import ProtocolError, SandboxError, Unavailable, from_os_error, from_status
from sandbox_nb.guest.image import Image
from sandbox_nb.guest.proto.process_pb2 import StartRequest, WaitRequest
from sandbox_nb.guest.proto.process_ttrpc import ProcessClient
from sandbox_nb.guest.proto.setup_pb2 import ConfigureRequest, RootDisk
from sandbox_nb.guest.proto.setup_ttrpc import SetupClient
from sandbox_nb.guest.proto.system_ttrpc import SystemClient
from sandbox_nb.hardware import Hardware
from sandbox_nb.host import Progress
from sandbox_nb.link import Link
from sandbox_nb.options import Options
from sandbox_nb.plan import Plan
from sandbox_nb.standby import Shelf
from sandbox_nb.ttrpc import Client, StatusError
from sandbox_nb.vm import shares
from sandbox_nb.vm.machine import Machine

REHEARSED = (b"sh", b"-c", b"true | cat")
"""A shell, its children and a pipe, as most first commands have. It is the initial file system's shell."""

REHEARSAL_TIMEOUT = 20.0
"""Seconds a guest gets for each part of a rehearsal; it takes a fifth of one."""

HUNG_UP_GRACE = 0.5
"""Seconds between an agent that hangs up and the verdict that it alone is to blame."""


@dataclass
class Running:
    """A configured machine and everything it needs; ``close`` ends all of it."""

    machine: Machine
    link: Link
    client: Client
    hardware: Hardware
    image: Image
    boot: Boot
    state_dir: Path
    _undo: AsyncExitStack

    async def close(self) -> None:
        """End the machine and remove what it left. Idempotent."""
        await self._undo.aclose()

    async def wait_gone(self) -> Unavailable:
        """Wait until the machine, what carries its calls, or the agent has ended; return why."""
        waiting = (self.machine.wait_gone(), self._wait_link_gone(), self._wait_hung_up())
        ends = [asyncio.create_task(one) for one in waiting]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return next(end.result() for end in ends if end.done())
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    async def _wait_link_gone(self) -> Unavailable:
        return self._with_last_words(str(await self.link.wait_gone()))

    async def _wait_hung_up(self) -> Unavailable:
        await self.client.wait_closed()
        # Mostly it is the machine that ends, which is known a moment later.
        await asyncio.sleep(HUNG_UP_GRACE)
        try:
            await SystemClient(self.client).info()
        except SandboxError as error:
            return self._with_last_words(f"the agent is gone, and the machine of no use without it: {error}")
        raise AssertionError("nothing is called over a connection that has ended")

    def _with_last_words(self, why: str) -> Unavailable:
        tail = self.machine.console.ring.last_words().strip()
        return Unavailable(f"{why}\nconsole, last lines:\n{tail}" if tail else why)


async def launch(options: Options, *, hostname: str, progress: Progress | None = None) -> Running:
    """Start a machine and configure it.

    Raises InvalidArgument, NotFound or FailedPrecondition for what is wrong before anything runs; Unavailable with
    the console's last lines when the machine ends while it boots; DeadlineExceeded when it never calls;
    ResourceExhausted when the host is short of open files, memory or disk.
    """
    try:
        return await _launch(options, hostname, progress)
    except OSError as error:
        if isinstance(error, SandboxError):  # Unavailable and DeadlineExceeded are both
            raise
        raise from_os_error(error, "the machine cannot be started") from error


async def _launch(options: Options, hostname: str, progress: Progress | None) -> Running:
    # The devices come first: nobody waits for an image to be built, to be told that a folder is not there.
    async with hardware.prepared(options.devices, sandbox=hostname) as devices, AsyncExitStack() as undo:
        began = time.perf_counter()
        made = await plan.make(options, progress)
        boot = Boot("cold", made.accelerator, {"prepare": time.perf_counter() - began}, ": ".join(made.transport))
        shelf = standby.shelf(made.kind, lambda: _paused(made), made.spec.memory) if options.standby else None
        through_qemu = await _shared_through_qemu(options.filesystems)
        joined = None
        if shelf is not None and options.state_dir is None and not through_qemu:
            joined = await _taken(shelf, boot)
        if joined is None:
            joined = await _Joined.over(await bring_up(made, boot, options.state_dir, through_qemu))
        undo.push_async_callback(joined.close)
        called, client = joined.called, joined.client
        boot.caps = called.confinement.how
        with boot.phase("configure"):
            await SetupClient(client).configure(_configuration(options, hostname, made.image))
        fitted = Hardware(called.machine, client, sandbox=hostname)
        if devices:
            with boot.phase("devices"):
                await fitted.fit(devices)
        if shelf is not None:
            shelf.want(options.standby)
            undo.push_async_callback(shelf.leave, options.standby)
        return Running(
            called.machine, called.link, client, fitted, made.image, boot, called.state_dir, undo.pop_all()
        )
    raise AssertionError("the exit stack swallows nothing")


@dataclass
class _Joined:
    """A machine whose agent has called, and the client its call has become."""

    called: Called
    client: Client

    @classmethod
    async def over(cls, called: Called) -> Self:
        """Join them. The machine is ended when that fails."""
        async with ended_on_failure(called):
            return cls(called, await Client.from_socket(called.control, map_error=_map_error))
        raise AssertionError("failures are not swallowed")

    @property
    def alive(self) -> bool:
        """Whether it can be used."""
        return self.called.alive

    async def close(self) -> None:
        """End both. Idempotent."""
        try:
            await self.client.aclose()
        finally:
            await self.called.close()


async def _paused(made: Plan) -> _Joined:
    """A machine to stand by: its agent has called and rehearsed a start, and it is paused."""
    joined = await _Joined.over(await bring_up(made, Boot("cold", made.accelerator)))
    async with ended_on_failure(joined):
        await _rehearse(joined.client)
        await joined.called.machine.pause()
    return joined


async def _rehearse(client: Client) -> None:
    """Have a guest do what comes with a start and a first command, for an emulated one is slow at it once."""
    await SetupClient(client).rehearse(_identity("rehearsal"), timeout=REHEARSAL_TIMEOUT)
    processes = ProcessClient(client)
    start = StartRequest(id="rehearsal", args=REHEARSED, stdout="late://rehearsal")
    await processes.start(start, timeout=REHEARSAL_TIMEOUT)
    await processes.wait(WaitRequest(id="rehearsal"), timeout=REHEARSAL_TIMEOUT)


async def _taken(shelf: Shelf[_Joined], boot: Boot) -> _Joined | None:
    """Let a machine that stood by run on, if there is one."""
    joined = await shelf.take()
    if joined is None:
        return None
    with boot.phase("take"):
        async with ended_on_failure(joined):
            await joined.called.machine.resume()
    boot.kind = "standby"
    return joined


async def _shared_through_qemu(shared: Sequence[Filesystem]) -> bool:
    """Whether root's QEMU has to stay root's, since the guest is to have root's rights to a folder through it."""
    if os.geteuid() != 0 or not shared:
        return False
    folder = rundir.create()
    try:
        ways = [await shares.through_virtiofs(one, folder, binaries.guard()) for one in shared]
        return None in ways
    finally:
        rundir.remove(folder)


def _identity(hostname: str) -> ConfigureRequest:
    """What makes a machine one of its own."""
    return ConfigureRequest(
        entropy=os.urandom(64),
        clock_realtime_ns=time.time_ns(),
        hostname=hostname,
        machine_id=secrets.token_hex(16),
    )


def _configuration(options: Options, hostname: str, found: Image) -> ConfigureRequest:
    request = _identity(hostname)
    request.init_args.extend(options.init_args_bytes)
    if found.root is not None:
        request.root.CopyFrom(RootDisk(serial=ROOT_SERIAL, type=found.root_type))
    return request


def _map_error(error: StatusError) -> SandboxError:
    if isinstance(error, ttrpc.ProtocolError):
        return ProtocolError(error.message)
    return from_status(error.code, error.message, tuple(error.details))
