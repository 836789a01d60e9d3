"""How busy a guest is: counters that grow from its boot on, and the rates between two looks at them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox_nb.guest.proto import stats_pb2

__all__ = ["Connection", "GuestProcess", "Rates", "Stats", "Traffic", "rates"]


@dataclass(frozen=True)
class Traffic:
    """Bytes that went in (read, received) and out (written, sent)."""

    in_bytes: int = 0
    out_bytes: int = 0


@dataclass(frozen=True)
class GuestProcess:
    """A process of the guest's user space."""

    pid: int
    parent: int
    state: str
    """A letter: R runs, S sleeps, D waits for a disk, T is stopped, Z has ended and nobody has waited for it."""
    command: str
    cpu_time: int
    """In the unit of ``Stats.cpu_total``."""
    resident: int
    """Bytes of memory."""


@dataclass(frozen=True)
class Stats:
    """One look at a guest's counters. ``uptime`` in seconds, memory in bytes; the unit of ``cpu_…`` is its own."""

    uptime: float
    cpu_busy: int
    cpu_total: int
    memory_total: int
    memory_available: int
    disks: Mapping[str, Traffic]
    networks: Mapping[str, Traffic]
    processes: tuple[GuestProcess, ...]

    @classmethod
    def of(cls, response: stats_pb2.GetResponse) -> Stats:
        """What the agent has answered."""
        return cls(
            response.uptime_ns / 1e9,
            response.cpu_busy,
            response.cpu_total,
            response.memory_total,
            response.memory_available,
            {disk.name: Traffic(disk.in_bytes, disk.out_bytes) for disk in response.disks},
            {network.name: Traffic(network.in_bytes, network.out_bytes) for network in response.networks},
            tuple(
                GuestProcess(one.pid, one.parent, one.state, one.command, one.cpu_time, one.resident)
                for one in response.processes
            ),
        )

    @property
    def memory_used(self) -> int:
        """Bytes that programs could not have."""
        return self.memory_total - self.memory_available


@dataclass(frozen=True)
class Rates:
    """What went on between two looks. Bytes a second, shares of all processors from 0 to 1."""

    cpu: float
    disk: Traffic
    network: Traffic
    processes: Mapping[int, float]
    """The share of each process, by pid."""


def rates(before: Stats, after: Stats) -> Rates:
    """The rates between two looks at one guest; what was not there before counts from zero."""
    seconds = max(after.uptime - before.uptime, 1e-3)
    ticks = max(after.cpu_total - before.cpu_total, 1)
    earlier = {process.pid: process.cpu_time for process in before.processes}
    return Rates(
        min(1.0, max(0.0, (after.cpu_busy - before.cpu_busy) / ticks)),
        _rate(before.disks.values(), after.disks.values(), seconds),
        _rate(before.networks.values(), after.networks.values(), seconds),
        {one.pid: min(1.0, max(0, one.cpu_time - earlier.get(one.pid, 0)) / ticks) for one in after.processes},
    )


def _rate(before: Iterable[Traffic], after: Iterable[Traffic], seconds: float) -> Traffic:
    # A device that was taken away has taken its counters with it.
    first, last = _sum(before), _sum(after)
    return Traffic(
        int(max(0, last.in_bytes - first.in_bytes) / seconds),
        int(max(0, last.out_bytes - first.out_bytes) / seconds),
    )


def _sum(all_of: Iterable[Traffic]) -> Traffic:
    total = Traffic()
    for one in all_of:
        total = Traffic(total.in_bytes + one.in_bytes, total.out_bytes + one.out_bytes)
    return total


@dataclass(frozen=True)
class Connection:
    """A vsock connection between host and guest, with the credit of both sides in bytes."""

    host_port: int
    guest_port: int
    state: str
    bytes_to_guest: int
    bytes_to_host: int
    host_may_send: int
    """What the guest has room for now."""
    guest_may_send: int
    """What the host has room for now."""

    @classmethod
    def of(cls, stream: Mapping[str, Any]) -> Connection:
        """What the device's statistics say of a connection (``vsock/control``)."""
        guest = stream["credit_of_guest"]
        return cls(
            stream["host_port"],
            stream["guest_port"],
            stream["state"],
            stream["bytes_to_guest"],
            stream["bytes_to_host"],
            stream["credit_of_host"]["free"],
            guest["granted"] - guest["held"],
        )
