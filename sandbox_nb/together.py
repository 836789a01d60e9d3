"""Several pieces of work at once, of which the first failure counts; and work that goes on to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any


async def together(*works: Coroutine[Any, Any, object]) -> None:
    """Do all at once. The first that fails, or the caller's cancellation, ends the others; it is raised as it is.

    Not a TaskGroup: that of Python 3.11 leaves its task counted as cancelled when one of the group fails, and no
    ``asyncio.timeout`` around it works any more; and its failures come in a group, which IPython shows bare.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def to_its_end(task: asyncio.Task[Any]) -> None:
    """Wait until a task has ended, however often the caller is cancelled meanwhile, who is to see to that then."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
