"""A transfer beside its call, without a guest."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sandbox_nb.files.info import Tally
from sandbox_nb.files.transfer import carry


async def test_one_that_is_cancelled_while_it_ends_gives_its_call_up_all_the_same():
    ended = asyncio.Event()

    async def call():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    ours, theirs = socket.socketpair()
    with ours, theirs:
        carrying = asyncio.create_task(carry(call(), ours, lambda: ours.recv(1), Tally(), None))
        await asyncio.sleep(0.1)
        for _ in range(2):
            carrying.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await carrying
        await asyncio.wait_for(ended.wait(), 5)
