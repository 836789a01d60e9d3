"""How long a machine may live and lie idle, and how many there may be in one process."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Iterator

from sandbox_nb.errors import InvalidArgument, ResourceExhausted

MACHINES_VARIABLE = "SANDBOX_NB_MAX_MACHINES"
"""Environment variable with the most machines at once in one process, those standing by included."""

DEFAULT_MACHINES = 64

_machines = 0


def most_machines() -> int:
    """The most machines at once in this process. Raises InvalidArgument when the variable says no number."""
    said = os.environ.get(MACHINES_VARIABLE, str(DEFAULT_MACHINES))
    if not said.isdecimal():
        raise InvalidArgument(f"{MACHINES_VARIABLE}={said!r}: a whole number is needed")
    return int(said)


@contextlib.contextmanager
def one_machine() -> Iterator[None]:
    """Count a machine for as long as the block lasts. Raises ResourceExhausted when there are enough."""
    global _machines
    if _machines >= (most := most_machines()):
        raise ResourceExhausted(
            f"{_machines} machines are the most in one process: stop one, or set {MACHINES_VARIABLE} above {most}"
        )
    _machines += 1
    try:
        yield
    finally:
        _machines -= 1


class Usage:
    """Whether a machine is being used: by calls under way, and by processes that run in it.

    Belongs to the event loop it was made in, whose clock knows no jumps.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._idle_since = self._loop.time()
        self._uses = 0

    @property
    def age(self) -> float:
        """Seconds since the machine is there."""
        return self._loop.time() - self._began

    @property
    def idle(self) -> float:
        """Seconds since it was last used; 0 while it is."""
        return 0.0 if self._uses else self._loop.time() - self._idle_since

    def begin(self) -> None:
        """It is used from now on."""
        self._uses += 1

    def end(self) -> None:
        """One use is over."""
        self._uses -= 1
        self._idle_since = self._loop.time()

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """It is used for as long as the block lasts."""
        self.begin()
        try:
            yield
        finally:
            self.end()


async def reached(usage: Usage, idle_timeout: float | None, max_lifetime: float | None) -> str:
    """Wait until a machine has been idle, or there, for as long as it may be; return which, in words."""
    while True:
        life = math.inf if max_lifetime is None else max_lifetime - usage.age
        rest = math.inf if idle_timeout is None else idle_timeout - usage.idle
        if life <= 0:
            return f"it has lived for max_lifetime={max_lifetime:g} s"
        if rest <= 0:
            return f"nobody used it for idle_timeout={idle_timeout:g} s"
        await asyncio.sleep(min(life, rest))
