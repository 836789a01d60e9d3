"""The event loop of those who do not await."""

from __future__ import annotations

import os

from sandbox_nb.background import BACKGROUND, run_blocking


async def answer():
    return 42


def test_a_child_forked_while_the_loop_is_asked_for_has_a_loop_of_its_own():
    assert run_blocking(answer()) == 42
    with BACKGROUND._lock:  # as another thread may hold it
        pid = os.fork()
        if pid == 0:
            os._exit(run_blocking(answer()))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
    assert run_blocking(answer()) == 42
