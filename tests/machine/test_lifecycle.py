"""The life of a sandbox: what each verb needs, and that nothing is left whichever way it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from sandbox_nb import (
    AsyncSandbox,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ProcessTimedOut,
    Sandbox,
    State,
    Stopped,
    Unavailable,
    plan,
)
from sandbox_nb.vm.machine import Machine
from sandbox_nb.vm.process import Child


def test_the_verbs_need_their_states(own):
    for verb in (own.stop, own.client, lambda: own.start_stream("x"), lambda: own.run("true"), own.info):
        with pytest.raises(FailedPrecondition, match="new"):
            verb()
    with pytest.raises(FailedPrecondition, match="has not been started"):
        _ = own.boot
    assert own.state is State.NEW
    own.start()
    with pytest.raises(FailedPrecondition, match="running"):
        own.start()
    assert own.run("echo alive").stdout == "alive\n"
    own.stop()
    assert own.state is State.STOPPED
    with pytest.raises(FailedPrecondition, match="stopped"):
        own.stop()
    with pytest.raises(FailedPrecondition, match="has no machine, it is stopped"):
        _ = own.boot
    own.start()
    assert own.run("echo again").stdout == "again\n"


def test_a_block_starts_nothing_and_guarantees_the_stop():
    with Sandbox() as sandbox:
        assert sandbox.state is State.NEW
        sandbox.start()
    assert sandbox.state is State.STOPPED


def test_started_starts():
    with Sandbox.started(cpu=2, memory=300, name="two") as sandbox:
        assert sandbox.run("nproc; hostname").stdout.split() == ["2", "two"]
        assert sandbox.options.memory == 300
        total = int(sandbox.run("grep MemTotal /proc/meminfo").stdout.split()[1])
        assert 200 * 1024 < total < 300 * 1024


def test_init_arguments_reach_the_agent_whole(own):
    everything = bytes(range(1, 256))
    own.start(init_args=["-debug", everything])
    assert own.read("/run/sandbox_nb/init_args") == b"-debug\0" + everything + b"\0"


def test_two_machines_are_no_twins():
    with Sandbox.started(name="a") as a, Sandbox.started(name="b") as b:
        for question in ("hostname", "cat /etc/machine-id", "head -c 16 /dev/urandom | od -x"):
            assert a.run(question, check=True).stdout != b.run(question, check=True).stdout


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 64, "ü"])
def test_a_name_must_do_as_a_host_name(name):
    with pytest.raises(InvalidArgument):
        Sandbox(name)


def test_a_kernel_that_is_not_there_is_named(own):
    with pytest.raises(NotFound, match="/no/vmlinuz"):
        own.start(kernel="/no/vmlinuz")
    assert own.state is State.FAILED
    with pytest.raises(FailedPrecondition, match="its start ended with: .*/no/vmlinuz.*; this needs it running"):
        own.run("true")
    own.start()


def test_an_image_that_does_not_exist_is_named(own):
    with pytest.raises((NotFound, InvalidArgument), match="gentoo"):
        own.start(image="gentoo")


def test_without_qemu_it_says_what_to_install(own, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="apt-get install qemu-system-x86"):
        own.start()


def test_a_state_folder_keeps_the_logs_whatever_its_length(own, tmp_path):
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    own.start(state_dir=folder)
    own.run("echo seen > /dev/console", check=True)
    own.stop()
    assert b"seen" in (folder / "console.log").read_bytes()


def test_a_private_state_folder_is_gone_after_the_stop(own):
    own.start()
    folder = own.state_dir
    assert (folder / "console.log").exists()
    own.stop()
    assert not folder.exists()


def test_a_state_folder_that_is_a_file_is_refused(own, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match="file"):
        own.start(state_dir=tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can make what even it cannot write to")
def test_a_state_folder_that_cannot_be_written_is_refused(own):
    with pytest.raises(InvalidArgument, match="/proc/self"):
        own.start(state_dir="/proc/self/state")


def qemu_pid(sandbox):
    """The QEMU below the guard of this sandbox."""
    return qemu_pid_of(sandbox.asynchronous)


def qemu_pid_of(sandbox):
    guard = sandbox._life.running.machine.child.pid
    (child,) = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
    return int(child)


def test_a_killed_machine_ends_every_call_at_once_and_says_why(own):
    own.start()
    with own.popen("sleep 981") as process:
        began = time.monotonic()
        os.kill(qemu_pid(own), signal.SIGKILL)
        with pytest.raises(Unavailable):
            process.wait()
        with pytest.raises(Unavailable, match="the machine is gone: signal 9"):
            own.run("true")
        assert time.monotonic() - began < 5
    assert own.state is State.FAILED
    own.start()
    assert own.run("echo up").stdout == "up\n"


def test_a_guest_panic_ends_the_machine_with_the_consoles_last_lines(own):
    own.start()
    with pytest.raises(Unavailable, match="(?s)the guest reset itself.*panic"):
        own.run("echo c > /proc/sysrq-trigger")
    assert own.state is State.FAILED
    own.stop()
    assert own.state is State.STOPPED


def test_a_dead_vsock_device_fails_the_machine(own):
    own.start()
    os.kill(own.asynchronous._life.running.link.device.pid, signal.SIGKILL)
    with pytest.raises(Unavailable, match="vsock device"):
        own.run("sleep 980")
    assert own.state is State.FAILED


def test_a_kernel_that_panics_ends_the_wait_with_its_words(own, monkeypatch):
    parameters = "console=ttyS0 panic=-1 rdinit=/bin/false"
    monkeypatch.setattr(plan.command, "kernel_command_line", lambda spec: parameters)
    with pytest.raises(Unavailable, match="(?s)the guest reset itself.*Kernel panic"):
        own.start(warm=False)
    assert own.state is State.FAILED


def test_a_start_out_of_time_says_so(own):
    with pytest.raises(DeadlineExceeded, match="0.5"):
        own.start(warm=False, timeout=0.5)
    assert own.state is State.FAILED


def test_a_machine_that_never_calls_is_given_up(own, monkeypatch):
    monkeypatch.setitem(plan.BOOT_TIMEOUT, "tcg", 0.3)
    monkeypatch.setitem(plan.BOOT_TIMEOUT, "kvm", 0.0)
    with pytest.raises(DeadlineExceeded, match="did not come up"):
        own.start(warm=False)


async def test_a_cancelled_start_leaves_nothing():
    sandbox = AsyncSandbox()
    start = asyncio.create_task(sandbox.start(warm=False))
    await asyncio.sleep(0.4)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert sandbox.state is State.FAILED
    await sandbox.start()
    await sandbox.stop()


def guests_in_memory():
    """How many guests' RAM this process holds."""
    links = [Path(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return sum("sandbox_nb-ram" in os.readlink(link) for link in links if link.is_symlink())


@pytest.mark.parametrize("moment", ["qemu-end", "spawned"])
async def test_a_start_that_is_cancelled_again_and_again_leaves_nothing(moment, monkeypatch):
    before = guests_in_memory()
    sandbox = AsyncSandbox()
    reached = asyncio.Event()
    execute, child_stop = Machine.execute, Child.stop

    async def executing(self, *arguments):
        reached.set()
        return await execute(self, *arguments)

    async def stopping(self, **keywords):
        start.cancel()  # in the midst of cleaning up
        await asyncio.sleep(0)
        await child_stop(self, **keywords)

    monkeypatch.setattr(Machine, "execute", executing)
    if moment == "qemu-end":
        monkeypatch.setattr(Child, "stop", stopping)
    start = asyncio.create_task(sandbox.start())
    await reached.wait()
    start.cancel()
    await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert sandbox.state is State.FAILED
    assert guests_in_memory() == before


async def test_a_block_that_is_left_while_its_machine_starts_takes_the_start_back():
    async with AsyncSandbox() as sandbox:
        start = asyncio.create_task(sandbox.start())
        while sandbox.state is not State.STARTING:
            await asyncio.sleep(0)
    assert sandbox.state is State.STOPPED
    with pytest.raises(Stopped, match="sandbox was stopped while it started"):
        await start
    assert sandbox.state is State.STOPPED


async def test_who_is_cancelled_while_a_start_is_taken_back_is_cancelled_when_that_is_done():
    sandbox = AsyncSandbox()
    start = asyncio.create_task(sandbox.start())
    while sandbox.state is not State.STARTING:
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    closing = asyncio.create_task(sandbox.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert sandbox.state is State.STOPPED
    with pytest.raises(Stopped):
        await start


async def test_a_task_that_was_cancelled_long_ago_hears_that_its_start_was_taken_back():
    sandbox = AsyncSandbox()

    async def starting():
        asyncio.current_task().cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        await sandbox.start()

    start = asyncio.create_task(starting())
    while sandbox.state is not State.STARTING:
        await asyncio.sleep(0)
    await sandbox.close()
    with pytest.raises(Stopped):
        await start


async def test_a_limit_is_the_failure_when_the_block_is_left():
    async with AsyncSandbox() as sandbox:
        await sandbox.start(max_lifetime=0.3)
        while sandbox.state is not State.STOPPING:
            await asyncio.sleep(0.001)
    assert isinstance(sandbox.failure, Stopped)


async def test_a_block_that_is_left_while_its_machine_stops_waits_for_that():
    async with AsyncSandbox() as sandbox:
        await sandbox.start()
        stop = asyncio.create_task(sandbox.stop())
        while sandbox.state is not State.STOPPING:
            await asyncio.sleep(0)
    assert sandbox.state is State.STOPPED
    await stop


def test_close_stops_whatever_there_is_and_may_be_called_again(own):
    own.close()
    assert own.state is State.NEW
    starting = own.begin_start()
    while own.state is not State.STARTING:
        time.sleep(0.001)
    own.close()
    assert own.state is State.STOPPED
    with pytest.raises(Stopped):
        starting.future.result()
    own.start()
    own.close()
    own.close()
    assert own.state is State.STOPPED


def test_who_is_interrupted_when_it_has_just_started_has_no_machine(monkeypatch):
    made = []
    start = Sandbox.start

    def started(self, *arguments, **keywords):
        start(self, *arguments, **keywords)
        made.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Sandbox, "start", started)
    with pytest.raises(KeyboardInterrupt):
        Sandbox.started()
    assert made[0].state is State.STOPPED


@pytest.mark.parametrize("name", [None, 5, "", "a b", "x" * 64])
def test_a_name_that_cannot_be_one_is_refused(name):
    with pytest.raises(InvalidArgument, match=re.escape(f"name={name!r}")):
        Sandbox(name)


def test_a_forked_child_can_neither_use_nor_end_its_parents_machine(own):
    own.start()
    pid = os.fork()
    if pid == 0:
        try:
            own.run("true")
        except FailedPrecondition:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert own.run("echo mine").stdout == "mine\n"


def test_an_interrupted_start_has_cleaned_up_when_it_returns(own):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        own.start(warm=False)
    assert own.state is State.FAILED
    own.start()


async def test_two_starts_of_a_failed_machine_are_one():
    async with AsyncSandbox() as sandbox:
        await sandbox.start()
        sandbox._life.running.machine.child.kill()
        while sandbox.state is State.RUNNING:
            await asyncio.sleep(0.01)
        results = await asyncio.gather(sandbox.start(), sandbox.start(), return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["FailedPrecondition", "NoneType"]


async def test_a_cancelled_stop_is_finished_all_the_same():
    sandbox = AsyncSandbox()
    await sandbox.start()
    stop = asyncio.create_task(sandbox.stop())
    await asyncio.sleep(0.001)
    stop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stop
    while sandbox.state is State.STOPPING:
        await asyncio.sleep(0.01)
    assert sandbox.state is State.STOPPED


async def test_commands_cancelled_at_any_moment_do_not_run_on():
    async with AsyncSandbox() as sandbox:
        await sandbox.start()
        for delay in range(20):
            running = asyncio.create_task(sandbox.run("sleep 979"))
            await asyncio.sleep(delay / 1000)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert (await sandbox.run("pgrep -f 'sleep 979' | grep -v $$")).stdout == ""


async def test_a_frozen_machine_does_not_hold_a_command_beyond_its_time():
    async with AsyncSandbox() as sandbox:
        await sandbox.start()
        pid = qemu_pid_of(sandbox)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(ProcessTimedOut, match="0.5"):
                await sandbox.run("true", timeout=0.5)
        finally:
            os.kill(pid, signal.SIGCONT)
