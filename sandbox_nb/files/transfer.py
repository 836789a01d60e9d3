"""A stream carried in a thread, beside the agent's call it belongs to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sandbox_nb.errors import ProtocolError
from sandbox_nb.files.info import CopyProgress, Tally

__all__ = ["carry"]

REPORT_EVERY = 0.1
"""Seconds between two reports of progress."""

GRACE = 5.0
"""Seconds that thread and guest get to remove what is half-made, when a copy ends before its end."""

T = TypeVar("T")
Response = TypeVar("Response")


async def carry(
    call: Coroutine[Any, Any, Response],
    sock: socket.socket,
    work: Callable[[], T],
    tally: Tally,
    progress: CopyProgress | None,
) -> tuple[Response, T]:
    """Run ``work``, which uses ``sock`` and may block, while the guest works on ``call``; return both results.

    When either fails or the caller is cancelled, the stream is closed under the other, which thereby ends too.
    """
    sock.setblocking(True)
    calling = asyncio.ensure_future(call)
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await _watch(calling, working, tally, progress)
        if isinstance(left := working.exception(), ConnectionError):
            raise ProtocolError("the guest left the stream before its end, and says that all went well") from left
        return calling.result(), working.result()
    finally:
        if not working.done() or not calling.done():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        await _settle(calling, working)


async def _watch(
    calling: asyncio.Future[Any], working: asyncio.Future[Any], tally: Tally, progress: CopyProgress | None
) -> None:
    """Wait for both, and raise what fails; but when the guest has left the stream, the call says why."""
    pending = {calling, working}
    while pending:
        done, pending = await asyncio.wait(
            pending, timeout=REPORT_EVERY if progress else None, return_when=asyncio.FIRST_COMPLETED
        )
        if progress is not None:
            progress(tally.size, tally.files)
        for task in done:
            error = task.exception()
            if error is not None and not (task is working and isinstance(error, ConnectionError)):
                raise error


async def _settle(calling: asyncio.Future[Any], working: asyncio.Future[Any]) -> None:
    try:
        await asyncio.wait({calling, working}, timeout=GRACE)
    finally:
        calling.cancel()
        for task in (calling, working):
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
