"""Events of the guest's processes, async and blocking."""

from __future__ import annotations

import itertools
import signal

import pytest

from sandbox_nb import AsyncSandbox, Sandbox, Unavailable
from sandbox_nb.events import OutOfMemory, ProcessExited, ProcessStarted


def test_starts_and_ends_are_told_in_order(sb):
    with sb.events() as events:
        sb.run("exit 3")
        sb.run("kill -TERM $$")
        first, second, third, fourth = itertools.islice(events, 4)
    assert isinstance(first, ProcessStarted)
    assert isinstance(second, ProcessExited)
    assert (second.id, second.pid, second.returncode) == (first.id, first.pid, 3)
    assert second.time >= first.time
    assert isinstance(third, ProcessStarted)
    assert third.id != first.id
    assert fourth.returncode == -signal.SIGTERM


def test_what_came_before_is_not_told(sb):
    sb.run("true")
    with sb.events() as events:
        sb.run("exit 9")
        assert isinstance(next(events), ProcessStarted)
        assert next(events).returncode == 9


def test_two_listeners_hear_the_same(sb):
    with sb.events() as one, sb.events() as other:
        sb.run("true")
        assert [next(one), next(one)] == [next(other), next(other)]


def test_want_of_memory_is_told_and_in_the_result():
    with Sandbox.started() as sb, sb.events() as events:
        done = sb.run("tail /dev/zero")
        assert done.out_of_memory
        assert done.returncode == -signal.SIGKILL
        kinds = [type(event) for event in itertools.islice(events, 3)]
        assert kinds == [ProcessStarted, OutOfMemory, ProcessExited]


def test_a_machine_that_dies_ends_the_events_and_says_why():
    with Sandbox.started() as sb, sb.events() as events:
        with pytest.raises(Unavailable):
            sb.run("echo c > /proc/sysrq-trigger")
        with pytest.raises(Unavailable, match="the guest reset itself"):
            list(events)


async def test_the_same_with_asyncio():
    async with AsyncSandbox() as sb:
        await sb.start()
        async with sb.events() as events:
            await sb.run("exit 5")
            assert isinstance(await anext(events), ProcessStarted)
            assert (await anext(events)).returncode == 5
