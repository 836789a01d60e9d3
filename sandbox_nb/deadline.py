"""A time limit on what is awaited, whose end is an error of ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from sandbox_nb.errors import DeadlineExceeded


@contextlib.asynccontextmanager
async def deadline(seconds: float | None, exceeded: Callable[[], DeadlineExceeded]) -> AsyncIterator[None]:
    """Cancel the block after so many seconds, None for never, and raise what ``exceeded`` makes then."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        # One of ours, from within the block, is about something else.
        if limit.expired() and not isinstance(error, DeadlineExceeded):
            raise exceeded() from None
        raise
