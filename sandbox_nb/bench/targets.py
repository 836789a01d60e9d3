"""What is aimed at: the rows that a change may not make worse than this.

Absolute figures are those of two emulated processors; a ratio has the same target on any machine. How fast the
host itself is, ``bare_boot_s`` and ``bare_exec_ms`` tell; ``warm_over_bare`` and ``exec_over_bare`` compare with
that.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A bound for a row's median, in the row's unit, and what the row tells."""

    what: str
    limit: float
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"

    def met_by(self, median: float) -> bool:
        """Whether this median will do."""
        return median >= self.limit if self.at_least else median <= self.limit

    def share(self, value: float) -> float:
        """How much of what is allowed ``value`` takes: 1 is just met, less is better either way round."""
        over, under = (self.limit, value) if self.at_least else (value, self.limit)
        if not under:
            return float("inf") if over else 0.0
        return over / under

    def verdict(self, median: float) -> str:
        """The same in a word."""
        return "met" if self.met_by(median) else "missed"


def _at_most(limit: float, what: str) -> Target:
    return Target(what, limit)


def _at_least(limit: float, what: str) -> Target:
    return Target(what, limit, at_least=True)


TARGETS = {
    "import_s": _at_most(0.15, "import sandbox_nb, which loads its parts when they are used"),
    "cold_over_bare": _at_most(1.3, "cold start over the bare boot of the same machine"),
    "warm_ready_s": _at_most(0.25, "start() of a restored machine to its first answer"),
    "warm_exec_s": _at_most(0.28, "start() of a restored machine to the end of its first command"),
    "first_exec_s": _at_most(0.03, "the first command of a restored machine, from then on"),
    "standby_ready_s": _at_most(0.05, "start() with a machine standing by to its first answer"),
    "eight_over_one": _at_most(8, "eight starts at once over one"),
    "exec_ms": _at_most(8, "run(['true']) in a machine that runs"),
    # That was set where a bare vfork and exec takes 3.5 ms; 8 over 3.5 holds on any host.
    "exec_over_bare": _at_most(2.29, "the same over a bare vfork and exec in the guest"),
    "ping_ms": _at_most(0.6, "System/Info, the smallest call"),
    "ttrpc_latency_ratio": _at_most(0.25, "a 1 KiB echo over grpcio's"),
    "ttrpc_rate_ratio": _at_least(4, "calls per second, 64 in flight, over grpcio's"),
    "vsock_h2g_ratio": _at_least(0.8, "MB/s to the guest over virtio-serial's"),
    "vsock_g2h_ratio": _at_least(0.7, "MB/s from the guest over virtio-serial's"),
    "vsock_rtt_ratio": _at_most(1.8, "a byte there and back over virtio-serial's"),
    "vsock_h2g_tcp_ratio": _at_least(3, "MB/s to the guest over TCP's through QEMU"),
    "vsock_g2h_tcp_ratio": _at_least(3, "MB/s from the guest over TCP's through QEMU"),
    "vsock_rtt_tcp_ratio": _at_most(1, "a byte there and back over TCP's through QEMU"),
    "vsock_device_anon_mb": _at_most(20, "anonymous memory of the device's process"),
    "vsock_device_spawn_ms": _at_most(30, "spawn of that process to its sockets"),
    "vsock_device_idle_percent": _at_most(0, "its processor time with nothing to do"),
    "term_seq_ratio": _at_most(0.9, "seq 1 200000 over JupyterLab's terminal"),
    "term_yes_ratio": _at_most(1.1, "20 MB of yes over JupyterLab's terminal"),
    "term_key_ratio": _at_most(3, "a key to its echo over JupyterLab's terminal"),
    "quicksand_over_ours": _at_least(30, "quicksand's start, command and stop over ours"),
    "libguestfs_over_ours": _at_least(30, "libguestfs's start, command and stop over ours"),
}
