"""A time limit on what is awaited, whose end is an error of ours."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable

from sandbox_nb.errors import DeadlineExceeded, InvalidArgument

__all__ = ["check_timeout", "deadline"]


@contextlib.asynccontextmanager
async def deadline(seconds: float | None, exceeded: Callable[[], DeadlineExceeded]) -> AsyncIterator[None]:
    """Cancel the block after so many seconds, None for never, and raise what ``exceeded`` makes then.

    Raises InvalidArgument for what is neither.
    """
    check_timeout(seconds)
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        # One of ours, from within the block, is about something else.
        if limit.expired() and not isinstance(error, DeadlineExceeded):
            raise exceeded() from None
        raise


def check_timeout(seconds: object) -> None:
    """Raise InvalidArgument unless it is a number of seconds, or None for no limit."""
    if seconds is not None and not _is_number(seconds):
        raise InvalidArgument(f"timeout={seconds!r}: seconds, or None, are needed")


def _is_number(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:  # more than the clock's numbers, which are floats, can be
        return False
