"""Processes under the guard: what is kept of their words, and that none runs on which nobody watches."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import subprocess

import pytest

from sandbox_nb import binaries
from sandbox_nb.errors import ResourceExhausted
from sandbox_nb.vm import log
from sandbox_nb.vm.console import Console
from sandbox_nb.vm.process import Child

SPEAKS = ["sh", "-c", "seq 10000; echo end"]


@pytest.fixture
def short(monkeypatch):
    """Logs of at most 100 bytes."""
    monkeypatch.setattr(log, "FILE_LIMIT", 100)


async def test_a_log_has_the_first_of_what_is_said_within_a_bound_and_the_ring_the_last(short, tmp_path):
    path = tmp_path / "log"
    child = Child.spawn(SPEAKS, name="it", guard=binaries.guard(), log_file=path.open("wb", buffering=0))
    assert await child.wait() == 0
    assert path.stat().st_size == 100
    assert path.read_bytes().startswith(b"1\n2\n3\n")
    assert child.log.tail(2) == "10000\nend"


async def test_a_console_is_bounded_alike(short, tmp_path):
    ours, qemus = socket.socketpair()
    console = Console(ours, tmp_path / "log")
    with qemus:
        qemus.sendall(b"x" * 1000 + b"end")
    console.close()
    assert (tmp_path / "log").read_bytes() == b"x" * 100
    assert console.ring.tail().endswith("end")


@pytest.mark.parametrize("begun", [0, 1])
async def test_who_cannot_be_watched_is_ended_and_said(monkeypatch, begun):
    """The first descriptor is the owner's, for the guard; the second that of what was started."""
    open_pidfd, calls, started, popen = os.pidfd_open, [], [], subprocess.Popen

    def few(pid):
        calls.append(pid)
        if len(calls) > begun:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return open_pidfd(pid)

    def start(*args, **keywords):
        started.append(popen(*args, **keywords))
        return started[-1]

    monkeypatch.setattr(os, "pidfd_open", few)
    monkeypatch.setattr(subprocess, "Popen", start)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ResourceExhausted, match=re.escape("it cannot be started: open files are short")):
        Child.spawn(["sleep", "60"], name="it", guard=binaries.guard())
    assert len(started) == begun
    assert [process.returncode for process in started] == [-9] * begun
    assert os.listdir("/proc/self/fd") == before
    await asyncio.sleep(0)
