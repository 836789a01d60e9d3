"""The taps of one machine, and what they have seen: within bounds, the latest of it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from pathlib import Path
from typing import Any, Self

from sandbox_nb.errors import FailedPrecondition, InvalidArgument, SandboxError
from sandbox_nb.lens import calls, orders, packets
from sandbox_nb.lens.calls import Calls
from sandbox_nb.lens.crossings import Crossings
from sandbox_nb.lens.orders import Orders
from sandbox_nb.link import Link
from sandbox_nb.ttrpc import Client
from sandbox_nb.ttrpc.frames import Frame
from sandbox_nb.vm.machine import Machine

__all__ = ["AsyncLens", "Lens"]

KEPT_BYTES = 32 * 1024 * 1024
KEPT_COUNT = 50_000
"""Frames and QMP messages that are kept, and the bytes in them; the oldest go first."""

SNAP = 256
"""Bytes of each packet's payload that are kept."""

FILE_BYTES = 64 * 1024 * 1024
"""Length of the packets' file, at which it ends."""


class _Latest:
    """The last that was seen, within the bounds."""

    def __init__(self) -> None:
        self._seen: deque[calls.Seen | orders.Seen] = deque()
        self._bytes = 0

    def add(self, seen: calls.Seen | orders.Seen) -> None:
        self._seen.append(seen)
        self._bytes += seen.kept
        while self._bytes > KEPT_BYTES or len(self._seen) > KEPT_COUNT:
            self._bytes -= self._seen.popleft().kept

    def all(self) -> list[calls.Seen | orders.Seen]:
        # One step of the interpreter, so that it may be asked for in another thread than that which adds.
        return list(self._seen)


class AsyncLens:
    """Records what crosses between the host and one machine, from ``AsyncSandbox.trace`` until ``close``.

    What was recorded can be had also after that, and after the machine's end. ``complete`` is False where vsock
    packets are not seen: the host kernel's vsock shows them to nobody.
    """

    def __init__(self, client: Client, machine: Machine, link: Link) -> None:
        self.complete = False
        self.closed = False
        self._client = client
        self._machine = machine
        self._link = link
        self._calls = Calls()
        self._orders = Orders()
        self._latest = _Latest()
        self._packets = tempfile.TemporaryFile()  # noqa: SIM115 - it has no name, so nothing is left whoever dies
        weakref.finalize(self, self._packets.close)

    @classmethod
    async def open(cls, client: Client, machine: Machine, link: Link) -> Self:
        """Begin. Raises Unavailable or FailedPrecondition when the packets cannot be had."""
        try:
            lens = cls(client, machine, link)
        except OSError as error:
            raise FailedPrecondition(f"what crosses cannot be kept in {tempfile.gettempdir()}: {error}") from error
        lens.complete = await link.trace(lens._packets.fileno(), snap=SNAP, limit=FILE_BYTES)
        client.tap(lens._frame)
        machine.tap(lens._message)
        return lens

    async def close(self) -> None:
        """Look no longer. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._client.tap(None)
        self._machine.tap(None)
        with contextlib.suppress(SandboxError):  # the machine may be gone
            await self._link.trace(None)

    def crossings(self, *, layers: Collection[str] = (), match: str = "", last: int | None = None) -> Crossings:
        """What crossed, all or what is asked for (see ``Crossings.only``). In any thread."""
        found = [
            calls.crossing(seen) if isinstance(seen, calls.Seen) else orders.crossing(seen)
            for seen in self._latest.all()
        ]
        if self.complete:
            found += packets.crossings(self._recorded())
        return Crossings.ordered(found).only(layers=layers, match=match, last=last)

    def save(self, path: str | os.PathLike[str], **which: Any) -> None:
        """Write what crossed to a file: ``.jsonl`` all layers, ``.pcapng`` the packets, for Wireshark.

        ``which`` as for ``crossings``, and only for JSON lines. Raises InvalidArgument for another file, OSError.
        """
        suffix = Path(path).suffix
        if suffix == ".jsonl":
            self.crossings(**which).save(path)
        elif suffix == ".pcapng":
            if not self.complete:
                raise FailedPrecondition("there are no packets to save: the kernel's vsock shows them to nobody")
            if any(which.values()):
                raise InvalidArgument(f"{os.fspath(path)}: packets are saved whole; filter them in Wireshark")
            Path(path).write_bytes(self._recorded())
        else:
            raise InvalidArgument(f"{os.fspath(path)}: a name with .jsonl or .pcapng at its end is needed")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __str__(self) -> str:
        layers = "calls, orders and packets" if self.complete else "calls and orders"
        return f"{'has' if self.closed else 'records'} {layers}"

    def __repr__(self) -> str:
        return f"<AsyncLens {self}>"

    def _recorded(self) -> bytes:
        """The packets' file so far. The device writes it, at the same offset as we would read it from."""
        file = self._packets.fileno()
        return os.pread(file, os.fstat(file).st_size, 0)

    def _frame(self, sent: bool, frame: Frame) -> None:
        self._latest.add(self._calls.see(time.time_ns(), sent, frame))

    def _message(self, sent: bool, text: bytes) -> None:
        self._latest.add(self._orders.see(time.time_ns(), sent, text))


class Lens:
    """An AsyncLens for people who do not await."""

    def __init__(self, lens: AsyncLens, wait: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._lens = lens
        self._wait = wait
        self.crossings = lens.crossings
        self.save = lens.save

    @property
    def complete(self) -> bool:
        """Whether vsock packets are seen too."""
        return self._lens.complete

    @property
    def closed(self) -> bool:
        """Whether it looks no longer."""
        return self._lens.closed

    def close(self) -> None:
        """Look no longer. Idempotent."""
        self._wait(self._lens.close())

    def __repr__(self) -> str:
        return f"<Lens {self._lens}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
