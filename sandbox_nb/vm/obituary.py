"""Why a QEMU ended, as the error for all who wait."""

from __future__ import annotations

from sandbox_nb.errors import Unavailable
from sandbox_nb.vm.console import Console
from sandbox_nb.vm.process import Child


async def obituary(reason: str, status: int, child: Child, console: Console | None = None) -> Unavailable:
    """Say why a QEMU ended: its shutdown reason or exit status, its last words, the console's last lines."""
    why = {
        "guest-shutdown": "the guest powered itself off",
        "guest-reset": "the guest reset itself; a kernel panic does that",
        "guest-panic": "the guest's kernel panicked",
        "host-signal": "a signal ended QEMU",
    }.get(reason) or _exit_words(status)
    parts = [f"the machine is gone: {why}"]
    if words := child.log.tail(5).strip():
        parts.append(f"QEMU said: {words}")
    if console is not None and (tail := console.ring.last_words().strip()):
        parts.append(f"console, last lines:\n{tail}")
    return await child.end("\n".join(parts), told_to=reason == "host-signal")


def _exit_words(status: int) -> str:
    return f"signal {status - 128} ended QEMU" if status > 128 else f"QEMU ended with status {status}"
