"""What is seen of a machine that runs, as the parts of a page and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from sandbox_nb import sparkline
from sandbox_nb.portrait import Portrait, table
from sandbox_nb.stats import Connection, GuestProcess, Rates, Stats, Traffic

HISTORY = 60
"""Looks that a plot shows."""

MAX_PROCESSES = 20
"""Rows of the list of processes, the busiest first."""


@dataclass(frozen=True)
class Seen:
    """A machine as it was seen once; what is asked of the guest is not there when it does not run."""

    portrait: Portrait
    stats: Stats | None = None
    history: Sequence[tuple[Rates, Stats]] = ()
    """What was seen before and now, the latest last."""
    connections: Sequence[Connection] = ()
    asked_to_end: frozenset[int] = frozenset()
    """Processes that were asked to end and are still there."""

    def parts(self, *, live: bool) -> dict[str, str]:
        """The parts of a page; ``live``: with what can be pressed."""
        if self.stats is None:
            return self.portrait.parts()
        return {
            **self.portrait.parts(),
            "plots": _plots(self.stats, self.history),
            "processes": _processes(self, live=live),
            "streams": _streams(self.connections),
        }

    def __str__(self) -> str:
        lines = [str(self.portrait)]
        if self.stats is not None:
            memory = f"{size(self.stats.memory_used)} of {size(self.stats.memory_total)}"
            cpu = f"processors {_percent(self.history[-1][0].cpu)}, " if self.history else ""
            lines.append(f"  {cpu}memory {memory}, {len(self.stats.processes)} processes")
        return "\n".join(lines)


def size(number: float) -> str:
    """Bytes as people say them: ``812 B``, ``1.4 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1000 or unit == "GiB":
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError("the last unit takes all")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _plots(stats: Stats, history: Sequence[tuple[Rates, Stats]]) -> str:
    looks = [rates for rates, _ in history]
    now = looks[-1] if looks else Rates(0.0, Traffic(), Traffic(), {})
    memory = f"{size(stats.memory_used)} of {size(stats.memory_total)}"
    used = [float(one.memory_used) for _, one in history]
    return "".join(
        (
            _plot("Processors", _percent(now.cpu), sparkline.svg([[one.cpu for one in looks]], top=1.0)),
            _plot("Memory", memory, sparkline.svg([used], top=float(stats.memory_total))),
            _traffic_plot("Disks", ("read", "written"), [one.disk for one in looks]),
            _traffic_plot("Network", ("received", "sent"), [one.network for one in looks]),
        )
    )


def _plot(title: str, words: str, picture: str) -> str:
    return f'<div class="plot"><h4>{title}</h4><p>{escape(words)}</p>{picture}</div>'


def _traffic_plot(title: str, names: tuple[str, str], history: Sequence[Traffic]) -> str:
    now = history[-1] if history else Traffic()
    lines = [[float(one.in_bytes) for one in history], [float(one.out_bytes) for one in history]]
    legend = (
        f'<i></i><span title="{names[0]}">{size(now.in_bytes)}/s</span>'
        f'<i class="second"></i><span title="{names[1]}">{size(now.out_bytes)}/s</span>'
    )
    return f'<div class="plot"><h4>{title}</h4><p>{legend}</p>{sparkline.svg(lines)}</div>'


def _processes(seen: Seen, *, live: bool) -> str:
    assert seen.stats is not None
    shares = seen.history[-1][0].processes if seen.history else {}
    busiest = sorted(seen.stats.processes, key=lambda one: (-shares.get(one.pid, 0.0), one.pid))
    rows = [_process(one, shares.get(one.pid, 0.0), seen, live=live) for one in busiest[:MAX_PROCESSES]]
    more = len(busiest) - len(rows)
    note = f"<p>… and {more} more</p>" if more > 0 else ""
    return table(("pid", "command", "cpu", "memory", "state", ""), rows, raw_last=True) + note


def _process(one: GuestProcess, share: float, seen: Seen, *, live: bool) -> tuple[str, ...]:
    word = "kill" if one.pid in seen.asked_to_end else "end"
    button = f'<button data-end="{one.pid}" aria-label="{word} process {one.pid}">{word}</button>' if live else ""
    return str(one.pid), one.command, _percent(share), size(one.resident), one.state, button


def _streams(connections: Sequence[Connection]) -> str:
    head = ("ports, host:guest", "state", "to the guest", "to the host", "host may send", "guest may send")
    rows = [
        (
            f"{one.host_port}:{one.guest_port}",
            one.state.lower().replace("_", " "),
            *map(size, (one.bytes_to_guest, one.bytes_to_host, one.host_may_send, one.guest_may_send)),
        )
        for one in connections
    ]
    return table(head, rows)
