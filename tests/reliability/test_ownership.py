"""What a process started goes with it, however it goes, and the next one finds a clean place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time

import pytest
from jupyter_client import KernelManager
from support import alive, descendants

from sandbox_nb import AsyncSandbox, Sandbox, State, rundir

pytestmark = pytest.mark.vm

GONE = 2.0
"""Seconds after an owner's death within which nothing of it may be left: the promise."""

OWNER = """
import os, sys, threading
from sandbox_nb import Sandbox
sb = Sandbox.started(name="owned")
terminal = sb.popen("exec sh", tty=(24, 80))
# The memory is no other test's, so that a template must be made for it.
second = dict(cpu=1, memory=int(sys.argv[1]))
threading.Thread(target=Sandbox("second").start, kwargs=second, daemon=True).start()
print("ready", flush=True)
{end}
"""


@contextlib.contextmanager
def owner(end="sys.stdin.read()", memory=131):
    """A process with a machine, an open terminal, and a second machine that boots to be saved."""
    program = [sys.executable, "-c", OWNER.format(end=end), str(memory)]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def building(process):
    """All the product's processes below, once those of the second machine are among them."""
    pids = descendants(process.pid)
    return pids if len(pids) >= 8 else set()  # two of: guard and QEMU, guard and vsock device


SOAKED = [pytest.param(number, marks=pytest.mark.soak) for number in (signal.SIGTERM, signal.SIGHUP)]


@pytest.mark.parametrize("number", [signal.SIGKILL, *SOAKED])
def test_a_killed_owner_leaves_nothing(number):
    with owner() as process:
        assert wait_until(lambda: building(process), 20)
        pids = building(process)
        process.send_signal(number)
        process.wait()
        assert wait_until(lambda: not alive(pids), GONE), alive(pids)
        # SIGTERM and SIGHUP end Python as SIGKILL does: its handlers do not run. The next start sweeps.
        folders = [path for path in rundir.base().iterdir() if path.name.startswith(f"{process.pid}-")]
        with Sandbox.started() as sandbox:
            assert sandbox.run("echo next").stdout == "next\n"
        assert not [folder for folder in folders if folder.exists()]


def test_an_owner_that_exits_at_once_leaves_nothing():
    with owner(end="sys.stdin.readline(); os._exit(3)") as process:
        pids = building(process) or descendants(process.pid)
        assert pids
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait() == 3
        assert wait_until(lambda: not alive(pids), GONE), alive(pids)


def test_an_owner_that_ends_as_programs_do_leaves_not_even_a_folder():
    with owner(end="sb.stop()") as process:
        process.wait()
        assert not [path for path in rundir.base().iterdir() if path.name.startswith(f"{process.pid}-")]


def test_a_template_half_made_is_made_by_the_next():
    with owner(memory=132) as process:
        assert wait_until(lambda: building(process), 20)
        process.kill()
        process.wait()
    with Sandbox.started(cpu=1, memory=132) as sandbox:
        assert sandbox.boot.template
    with Sandbox.started(cpu=1, memory=132) as sandbox:
        assert sandbox.boot.kind == "warm"


@pytest.mark.timeout(180)
def test_a_notebooks_kernel_killed_and_restarted_leaves_nothing_and_starts_again():
    code = "from sandbox_nb import Sandbox; sb = Sandbox.started(); t = sb.popen('exec sh', tty=(24, 80))"
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        for end in (lambda pid: os.kill(pid, signal.SIGKILL), lambda pid: None):
            client.wait_for_ready(timeout=60)
            reply = client.execute_interactive(code, timeout=60, output_hook=lambda _: None)
            assert reply["content"]["status"] == "ok", reply["content"]
            pid = manager.provisioner.pid
            pids = descendants(pid)
            assert len(pids) >= 4
            end(pid)
            manager.restart_kernel(now=True)
            assert wait_until(lambda pids=pids: not alive(pids), GONE), alive(pids)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.mark.parametrize("what", ["QEMU", "device", "both"])
async def test_what_is_frozen_is_ended_all_the_same(what):
    """The promise is five seconds; the guest has three of them to power itself off."""
    sandbox = AsyncSandbox()
    await sandbox.start()
    running = sandbox._life.running
    pids = {
        "QEMU": descendants(running.machine.child.pid),
        "device": descendants(running.link.device.pid),
        "both": descendants(running.machine.child.pid) | descendants(running.link.device.pid),
    }[what]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    await asyncio.wait_for(sandbox.stop(), 10)
    assert sandbox.state is State.STOPPED
    assert wait_until(lambda: not alive(pids), GONE)


def test_a_stopped_machine_leaves_no_descriptor():
    def held():
        return len(os.listdir("/proc/self/fd"))

    with Sandbox("fds") as sandbox:
        sandbox.start()
        sandbox.stop()
        before = held()
        for _ in range(5):
            sandbox.start()
            with sandbox.popen("cat") as process:
                process.stdin.write(b"x")
            sandbox.stop()
        assert held() == before


def test_an_owner_in_a_terminal_that_is_closed_leaves_nothing():
    parent, child = os.openpty()
    program = [sys.executable, "-c", OWNER.format(end="sys.stdin.read()"), "131"]
    process = subprocess.Popen(program, stdin=child, stdout=child, stderr=child, start_new_session=True)
    os.close(child)
    said = b""
    while b"ready" not in said:
        assert select.select([parent], [], [], 60)[0]
        said += os.read(parent, 1000)
    pids = descendants(process.pid)
    os.close(parent)  # reads end, and Python with them
    process.wait(20)
    assert wait_until(lambda: not alive(pids), GONE), alive(pids)
