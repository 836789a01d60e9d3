"""Machines that stand by: taken in an instant, like any other in use, and gone with who wanted them."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time

import pytest
from support import descendants

from sandbox_nb import AsyncSandbox, InvalidArgument, Sandbox, standby
from sandbox_nb.standby import Shelf


def wait_until(number):
    deadline = time.monotonic() + 60
    while standby.ready() != number:
        assert time.monotonic() < deadline, f"{standby.ready()} stand by, not {number}"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(standby, "QUIET", 0.0)
    monkeypatch.setattr(standby, "LOOK_AGAIN", 0.1)


def test_the_next_start_takes_one_and_another_takes_its_place():
    with Sandbox.started(name="zero", standby=2) as zero:
        wait_until(2)
        with Sandbox.started(name="one", standby=2, init_args=["x"]) as one:
            assert one.boot.kind == "standby"
            assert set(one.boot.phases) == {"prepare", "take", "configure"}
            assert one.run("hostname").stdout == "one\n"
            assert one.read("/run/sandbox_nb/init_args") == b"x\0"
            for question in ("head -c 16 /dev/urandom | od -x", "cat /etc/machine-id"):
                assert one.run(question, check=True).stdout != zero.run(question, check=True).stdout
            wait_until(2)
        assert zero.run("echo still").stdout == "still\n"
    assert standby.ready() == 0


@pytest.mark.parametrize("image", ["base", "python"])
def test_a_rehearsed_start_leaves_nothing_behind(image):
    """Two of one template, one of which stood by: all that differs is what they are told."""
    questions = (
        r"ps -eo args | grep -v '^\['",
        "find / -xdev -newer /etc/passwd -type f | sort",
        "ls /proc/1/fd",
        "cat /proc/mounts",
    )
    with Sandbox.started(image=image, standby=1) as first:
        wait_until(1)
        with Sandbox.started(image=image, standby=1) as taken:
            assert taken.boot.kind == "standby"
            for question in questions:
                answer = taken.run(question).stdout
                assert len(answer) > 10
                assert answer == first.run(question).stdout


def test_it_has_the_hosts_clock_however_long_it_stood():
    with Sandbox.started(standby=1):
        wait_until(1)
        time.sleep(2)
        with Sandbox.started(standby=1) as taken:
            assert taken.boot.kind == "standby"
            before = time.time()
            told = int(taken.run("date +%s").stdout)
            assert int(before) <= told <= time.time()


def test_another_machine_is_not_taken():
    with Sandbox.started(standby=1):
        wait_until(1)
        with Sandbox.started(cpu=1, memory=200, standby=1) as other:
            assert other.boot.kind != "standby"
        with Sandbox.started() as unasked:
            assert unasked.boot.kind == "warm"
        assert standby.ready() == 1


def test_logs_that_are_to_be_kept_need_a_machine_of_their_own(tmp_path):
    with Sandbox.started(standby=1):
        wait_until(1)
        with Sandbox.started(standby=1, state_dir=tmp_path) as kept:
            assert kept.boot.kind == "warm"
            kept.run("echo seen > /dev/console")
        assert b"seen" in (tmp_path / "console.log").read_bytes()


def test_one_that_died_is_not_taken():
    with Sandbox.started(standby=1):
        before = descendants(os.getpid())
        wait_until(1)
        for pid in descendants(os.getpid()) - before:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        with Sandbox.started(standby=1) as sandbox:
            assert sandbox.run("echo up").stdout == "up\n"


def test_they_go_when_memory_gets_short(monkeypatch):
    with Sandbox.started(standby=1):
        wait_until(1)
        monkeypatch.setattr(standby, "memory_mib", lambda: (100, 4096))
        wait_until(0)
        monkeypatch.undo()


async def test_a_host_that_refuses_a_machine_ends_the_making_and_the_next_start_asks_again(caplog):
    made = asyncio.Event()

    async def make():
        made.set()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    shelf = Shelf(make, 0)
    for _ in range(2):
        made.clear()
        shelf.want(1)
        keeper = shelf._keeper
        await asyncio.wait({keeper})
        assert made.is_set()
        assert keeper.exception() is None
    assert "no machine stands by: [Errno 24] Too many open files" in caplog.text
    for _ in range(2):
        await shelf.leave(1)


async def test_a_cancelled_loop_leaves_none():
    async with AsyncSandbox() as sandbox:
        await sandbox.start(standby=1)
        async with asyncio.timeout(60):
            while not standby.ready():
                await asyncio.sleep(0.02)
    assert standby.ready() == 0


@pytest.mark.parametrize(
    "options", [{"standby": -1}, {"standby": 65}, {"standby": "1"}, {"standby": 1, "warm": False}]
)
def test_a_number_that_makes_no_sense_is_refused(own, options):
    with pytest.raises(InvalidArgument, match="standby="):
        own.start(**options)
