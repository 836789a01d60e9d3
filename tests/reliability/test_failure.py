"""Whatever fails, everything that waits ends at once with an error that says what it was; the next start works."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from support import descendants

from sandbox_nb import AsyncSandbox, Disk, FailedPrecondition, Sandbox, State, Stopped, Unavailable
from sandbox_nb.vm.monitor import Monitor

pytestmark = pytest.mark.vm

ENDED = 5.0
"""Seconds within which all that waits must have ended: the promise, and far more than it takes."""


class Waiting:
    """One of each that can wait on a machine."""

    def __init__(self, sandbox):
        self.sandbox = sandbox

    async def begin(self):
        sandbox = self.sandbox
        process = await sandbox.popen("sleep 970", tty=(24, 80))
        reader, writer = await sandbox.start_stream("kept")
        console = await sandbox.attach_console()
        events = sandbox.events()
        self.closing = [writer.close, console.close, process.stdin.close, events.close]
        self.tasks = {
            "run": asyncio.create_task(sandbox.run("cat", input=b"x" * (8 << 20), stream=self.keep)),
            "quiet run": asyncio.create_task(sandbox.run("sleep 971")),
            "process": asyncio.create_task(process.wait()),
            "output": asyncio.create_task(self.read_all(process.stdout)),
            "stream": asyncio.create_task(self.read_all(reader)),
            "events": asyncio.create_task(self.read_events(events)),
            "copy": asyncio.create_task(sandbox.copy_to("/usr/share", "/root/share")),
        }
        self.console = asyncio.create_task(self.read_console(console))
        await asyncio.sleep(0.3)

    def keep(self, _number, _data):
        return asyncio.sleep(0.05)

    async def read_all(self, reader):
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        return "ended"

    async def read_events(self, events):
        async for _ in events:
            pass
        return "ended"

    async def read_console(self, console):
        with contextlib.suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(console, 65536):
                pass

    async def ended(self):
        """How each ended."""
        everything = [*self.tasks.values(), self.console]
        _, pending = await asyncio.wait(everything, timeout=ENDED)
        still = [name for name, task in self.tasks.items() if task in pending]
        for task in pending:
            task.cancel()
        results = await asyncio.gather(*everything, return_exceptions=True)
        for close in self.closing:
            close()
        assert not still, f"these wait on: {still}"
        return dict(zip(self.tasks, results, strict=False))


def guard(sandbox):
    return sandbox._life.running.machine.child.pid


def qemu(sandbox):
    (pid,) = descendants(guard(sandbox))
    return pid


def device(sandbox):
    (pid,) = descendants(sandbox._life.running.link.device.pid)
    return pid


async def panic(sandbox):
    with contextlib.suppress(Unavailable):
        await sandbox.run("echo c > /proc/sysrq-trigger")


async def agent_hangs_up(sandbox):
    """Only the agent's connection: the machine, its console and the device are as they were."""
    sandbox._life.running.client._channel._transport.abort()


WAYS = {
    "QEMU": (lambda sandbox: os.kill(qemu(sandbox), signal.SIGKILL), "signal 9 ended QEMU"),
    "QEMU crashes": (lambda sandbox: os.kill(qemu(sandbox), signal.SIGSEGV), "signal 11 ended QEMU"),
    "QEMU's guard": (lambda sandbox: os.kill(guard(sandbox), signal.SIGKILL), "signal 9 ended QEMU"),
    "device": (lambda sandbox: os.kill(device(sandbox), signal.SIGKILL), "the vsock device is gone"),
    "device's guard": (
        lambda sandbox: os.kill(sandbox._life.running.link.device.pid, signal.SIGKILL),
        "the vsock device is gone",
    ),
    "panic": (panic, "the guest reset itself; a kernel panic does that"),
    "agent": (agent_hangs_up, "the agent is gone"),
}


@pytest.mark.parametrize("way", WAYS)
async def test_all_that_waits_ends_and_says_what_failed(way):
    act, words = WAYS[way]
    async with AsyncSandbox() as sandbox:
        await sandbox.start()
        await sandbox.run("echo last words > /dev/console", check=True)
        waiting = Waiting(sandbox)
        await waiting.begin()
        if (acting := act(sandbox)) is not None:
            await acting
        ends = await waiting.ended()
        for name in ("run", "quiet run", "process", "events", "copy"):
            assert isinstance(ends[name], Unavailable), (name, ends[name])
            assert words in str(ends[name]), name
            assert ("Kernel panic" if way == "panic" else "last words") in str(ends[name]), name
        assert ends["stream"] == ends["output"] == "ended"
        assert sandbox.state is State.FAILED
        with pytest.raises(Unavailable, match=words):
            await sandbox.run("true")
        await sandbox.start()
        assert (await sandbox.run("echo up")).stdout == "up\n"


async def test_a_stop_ends_all_that_waits_and_says_so():
    async with AsyncSandbox("mine") as sandbox:
        await sandbox.start()
        waiting = Waiting(sandbox)
        await waiting.begin()
        await sandbox.stop()
        ends = await waiting.ended()
        for name in ("run", "quiet run", "copy"):
            assert isinstance(ends[name], Stopped), (name, ends[name])
            assert str(ends[name]) == "mine was stopped", name
        assert ends["process"] == -signal.SIGTERM, "the guest ended it before it powered off"
        assert ends["events"] == ends["stream"] == ends["output"] == "ended"


def test_want_of_memory_takes_processes_and_leaves_the_machine():
    with Sandbox.started() as sandbox:
        done = sandbox.run("tail /dev/zero")
        assert done.out_of_memory
        sandbox.run("for i in 1 2 3 4; do tail /dev/zero & done; wait")
        assert sandbox.run("echo alive").stdout == "alive\n"


def test_a_sandbox_of_another_loop_is_refused_and_not_waited_for():
    sandbox = AsyncSandbox("first")

    async def second():
        for verb in (sandbox.run("true"), sandbox.client(), sandbox.stop(), sandbox.read("/init")):
            with pytest.raises(FailedPrecondition, match="first belongs to the event loop it was started in"):
                await verb

    async def first():
        async with sandbox:
            await sandbox.start()
            await asyncio.to_thread(asyncio.run, second())
            assert (await sandbox.run("echo unharmed")).stdout == "unharmed\n"

    asyncio.run(first())


async def test_output_that_came_before_the_end_was_seen():
    seen = bytearray()
    async with AsyncSandbox() as sandbox:
        await sandbox.start()
        with pytest.raises(Unavailable, match="the guest reset itself"):
            await sandbox.run(
                "seq 100000; sync; sleep 0.5; echo c > /proc/sysrq-trigger",
                stream=lambda _, data: seen.extend(data),
            )
    assert seen.split() == [str(number).encode() for number in range(1, 100001)]


@pytest.mark.parametrize("moment", ["migrate-incoming", "device_add", "cont"])
async def test_a_start_whose_qemu_is_killed_at_any_moment_boots_and_keeps_the_template(moment, monkeypatch):
    """A QMP session tells who waits for an answer that QEMU is gone, and not who waits for an event."""
    execute = Monitor.execute
    others = descendants(os.getpid())
    victims = []

    async def deadly(monitor, verb, arguments=None):
        answer = await execute(monitor, verb, arguments)
        if verb == moment and not victims:
            (victim,) = (pid for pid in descendants(os.getpid()) - others if _is_qemu(pid))
            victims.append(victim)
            os.kill(victim, signal.SIGKILL)
        return answer

    async with AsyncSandbox() as sandbox:
        await sandbox.start()  # there is a template now
    monkeypatch.setattr(Monitor, "execute", deadly)
    async with AsyncSandbox() as sandbox, asyncio.timeout(100):
        await sandbox.start()
        assert victims
        assert "did not come to life and is kept: the machine is gone: signal 9 ended QEMU" in sandbox.boot.note
        assert (await sandbox.run("echo up")).stdout == "up\n"
        await sandbox.stop()
        await sandbox.start()
        assert sandbox.boot.kind == "warm"


async def test_a_device_that_was_leaving_when_the_machine_died_is_not_waited_for(tmp_path):
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    async with AsyncSandbox() as sandbox:
        await sandbox.start(disks=[Disk("d", tmp_path / "image")])
        os.kill(qemu(sandbox), signal.SIGSTOP)  # so that it is never asked
        leaving = asyncio.create_task(sandbox.detach("d"))
        await asyncio.sleep(0.1)
        os.kill(qemu(sandbox), signal.SIGKILL)
        done, _ = await asyncio.wait({leaving}, timeout=ENDED)
        assert done
        assert isinstance(leaving.exception(), Unavailable)


def _is_qemu(pid):
    with contextlib.suppress(FileNotFoundError):
        return "qemu-system" in Path(f"/proc/{pid}/exe").readlink().name
    return False
