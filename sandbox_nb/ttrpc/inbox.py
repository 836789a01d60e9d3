"""What came into a stream and was not consumed yet, up to a limit."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from .frames import MAX_PAYLOAD
from .status import Code, StatusError

INBOX_LIMIT: Final = 4 * MAX_PAYLOAD
"""Bytes that may wait in one stream. ttrpc has no flow control, so a fuller one ends with ResourceExhausted."""

MESSAGE_COST: Final = 64
"""What each message counts on top of its length, so that tiny ones are bounded too."""


class Inbox:
    """The messages of one stream, in order, and then its end. One consumer at a time."""

    def __init__(self, limit: int = INBOX_LIMIT) -> None:
        self._limit = limit
        self._size = 0
        self._messages: deque[bytes] = deque()
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self.error: StatusError | None = None

    def message(self, payload: bytes) -> StatusError | None:
        """Add a message; return why the stream cannot go on if that would be one too many."""
        cost = len(payload) + MESSAGE_COST
        if self._size + cost > self._limit:
            return StatusError(
                Code.RESOURCE_EXHAUSTED,
                f"the messages of this stream are not consumed as fast as they come: {self._limit} bytes wait",
            )
        self._size += cost
        self._messages.append(payload)
        self._wake()
        return None

    def respond(self, payload: bytes) -> StatusError | None:
        """Take a response: the end, after one more message unless it is empty (PROTOCOL.md, "Streaming")."""
        error = self.message(payload) if payload else None
        if error is None:
            self.end()
        return error

    def end(self) -> None:
        """Note that no further message comes."""
        self._ended = True
        self._wake()

    def fail(self, error: StatusError) -> None:
        """Note that no further message comes, and why; once the stream has ended that is no news."""
        if not self._ended:
            self.error = error
            self.end()

    async def get(self) -> bytes | None:
        """Return the next message, waiting for it; None at the end. An error is raised after the last message."""
        while not self._messages:
            if self.error is not None:
                raise self.error
            if self._ended:
                return None
            await self._wait()
        payload = self._messages.popleft()
        self._size -= len(payload) + MESSAGE_COST
        return payload

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("another task is waiting for this stream's next message already")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
