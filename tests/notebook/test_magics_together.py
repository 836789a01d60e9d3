"""Several things at once, and machines that die: nothing waits for the wrong thing, and each says what to do."""

from __future__ import annotations

import os
import signal

import pytest
from support import alive, descendants

pytestmark = pytest.mark.vm

IN_A_THREAD = """
import threading, time
from sandbox_nb import Sandbox
order = []
def work():
    with Sandbox.started(name="beside") as other:
        order.append(("other machine", other.run("hostname").stdout))
        order.append(("same machine", sb.run("echo called").stdout))
sb = get_ipython().magics_manager.registry["SandboxMagics"].session.find(None)
thread = threading.Thread(target=work)
thread.start()
"""


def test_a_long_command_a_start_and_a_call_at_once(running):
    """The cell ends only when the thread has done both; with any of them waiting for another it never would."""
    running.run("%sandbox run -- rm -f /tmp/go")
    running.run(IN_A_THREAD.replace('order.append(("same', "sb.write('/tmp/go', ''); order.append((\"same"))
    done = running.run("%%sandbox run --timeout 60\nuntil test -e /tmp/go; do sleep 0.1; done; echo cell")
    assert done.stdout == "cell\n"
    running.run("thread.join()")
    assert running.value("order") == [("other machine", "beside\n"), ("same machine", "called\n")]


def test_a_start_in_a_cell_does_not_hold_up_a_call_of_a_thread(running):
    running.run("stop, calls = threading.Event(), []")
    running.run(
        "def call():\n    while not stop.is_set():\n        calls.append(sb.run('true').returncode)\n"
        "import threading; thread = threading.Thread(target=call); thread.start()"
    )
    running.run("before = len(calls)\n%sandbox start --name second --warm off\nduring = len(calls) - before")
    running.run("stop.set(); thread.join()")
    running.run("%sandbox stop --name second")
    assert running.value("during") > 0


def test_a_magic_from_an_async_cell_and_from_a_thread(running):
    said = running.run("import asyncio\nawait asyncio.sleep(0)\n%sandbox run -- echo here")
    assert said.stdout == "here\n"
    running.run(
        "import threading\ndef work():\n"
        "    get_ipython().run_line_magic('sandbox', 'run --quiet --out r -- echo there')\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()"
    )
    assert running.value("r.stdout") == "there\n"


def test_a_machine_that_died_says_so_and_can_be_started_again(kernel):
    kernel.run("%sandbox start")
    pid = kernel.value("__import__('os').getpid()")
    qemu = [one for one in descendants(pid) if b"qemu-system" in _command(one) and b"guard" not in _command(one)]
    message = kernel.client.execute("%sandbox run -- sleep 60")
    while kernel.client.get_iopub_msg(timeout=30)["content"].get("execution_state") != "busy":
        pass
    os.kill(qemu[0], signal.SIGKILL)
    error = kernel.collect(message).error
    assert "Killed: the machine is gone: signal 9 ended QEMU" in error
    assert error.count("\n") == 0
    assert "failed" in kernel.run("%sandbox status").stdout
    again = kernel.run("%sandbox run -- true").error
    assert "Killed" in again
    assert kernel.run("%sandbox start").error == ""
    assert kernel.run("%sandbox run -- echo back").stdout == "back\n"
    assert not alive(set(qemu))


def _command(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()
