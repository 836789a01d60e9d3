"""Limits: how long a machine may lie idle and live, and how many there may be."""

from __future__ import annotations

import asyncio

import pytest

from sandbox_nb import (
    AsyncSandbox,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Sandbox,
    State,
    Stopped,
    limits,
)
from sandbox_nb.limits import Usage, reached

pytestmark = pytest.mark.vm


async def until_stopped(sandbox):
    while sandbox.state is not State.STOPPED:
        await asyncio.sleep(0.01)


async def test_a_machine_nobody_uses_is_stopped_and_says_why():
    async with AsyncSandbox("lazy") as sandbox:
        await sandbox.start(idle_timeout=0.3)
        await sandbox.run("true")
        await until_stopped(sandbox)
        with pytest.raises(FailedPrecondition, match="lazy is stopped.*nobody used it for idle_timeout=0.3 s"):
            await sandbox.run("true")
        await sandbox.start()
        await asyncio.sleep(0.5)
        assert sandbox.state is State.RUNNING, "the limit was the last start's"


async def test_a_process_is_use_and_who_watches_is_not():
    async with AsyncSandbox() as sandbox:
        await sandbox.start(idle_timeout=0.3)
        async with sandbox.events() as events:
            process = await sandbox.spawn("sleep 1")
            await process.wait()
            process.close()
            assert sandbox.state is State.RUNNING
            assert [event async for event in events], "told until the stop, and ended by it"
        await until_stopped(sandbox)


async def test_a_machine_that_is_old_is_stopped_whatever_it_does():
    async with AsyncSandbox() as sandbox:
        await sandbox.start(max_lifetime=0.5)
        with pytest.raises(Stopped, match="it has lived for max_lifetime=0.5 s"):
            await sandbox.run("sleep 60")
        await until_stopped(sandbox)


async def test_leaving_the_block_waits_for_a_limit_that_stops_it():
    async with AsyncSandbox() as sandbox:
        await sandbox.start(max_lifetime=0.2)
        while sandbox.state is State.RUNNING:
            await asyncio.sleep(0.001)
        assert sandbox.state is State.STOPPING
    assert sandbox.state is State.STOPPED


@pytest.mark.parametrize("seconds", [0, -1, "60", True, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["idle_timeout", "max_lifetime"])
def test_what_is_no_time_is_refused(name, seconds):
    with pytest.raises(InvalidArgument, match=name):
        Sandbox().start(**{name: seconds})


def test_there_are_as_many_machines_as_may_be(monkeypatch):
    most = limits._machines + 1  # other tests have machines too
    monkeypatch.setenv("SANDBOX_NB_MAX_MACHINES", str(most))
    with Sandbox.started() as one, Sandbox("two") as two:
        with pytest.raises(
            ResourceExhausted, match=f"{most} machines are the most.*SANDBOX_NB_MAX_MACHINES above {most}"
        ):
            two.start()
        assert one.run("echo unharmed").stdout == "unharmed\n"
        one.stop()
        two.start()


def test_a_number_of_machines_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("SANDBOX_NB_MAX_MACHINES", "many")
    with pytest.raises(InvalidArgument, match="SANDBOX_NB_MAX_MACHINES='many'"):
        Sandbox().start()


async def test_idleness_is_counted_from_the_end_of_the_last_use():
    usage = Usage()
    with usage.use():
        usage.begin()
        assert usage.idle == 0
    assert usage.idle == 0, "one of two uses goes on"
    usage.end()
    await asyncio.sleep(0.01)
    assert 0 < usage.idle <= usage.age
    assert await reached(usage, 0.02, None) == "nobody used it for idle_timeout=0.02 s"
