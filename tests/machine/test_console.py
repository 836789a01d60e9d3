"""The serial console: what the guest writes there, and what is typed."""

from __future__ import annotations

import os
import signal

import pytest

from sandbox_nb import FailedPrecondition, Sandbox, Unavailable
from sandbox_nb.life import State


def read_until(sock, text):
    sock.settimeout(10)
    seen = b""
    while text not in seen:
        data = sock.recv(4096)
        assert data, seen
        seen += data
    return seen


def test_what_is_written_to_the_console_is_seen_by_all_who_look(sb):
    with sb.attach_console() as one, sb.attach_console() as other:
        sb.run("echo hello-console > /dev/console", check=True)
        read_until(one, b"hello-console")
        read_until(other, b"hello-console")
    with sb.attach_console() as late:
        read_until(late, b"hello-console")
    assert "hello-console" in sb.console


def test_what_is_typed_reaches_the_guests_serial_line(sb):
    with sb.attach_console() as console, sb.popen('read line </dev/ttyS0; echo "<$line>"') as process:
        sb.run("sleep 0.2")
        console.sendall(b"typed\r")
        assert process.stdout.readline() == b"<typed>\n"


def test_a_reader_that_takes_nothing_holds_nobody_up(sb):
    with sb.attach_console():
        sb.run(
            "for i in 1 2 3 4 5 6 7 8; do head -c 65536 /dev/zero | tr '\\0' x; echo; done > /dev/console",
            check=True,
        )
        assert sb.run("echo alive").stdout == "alive\n"


def test_the_console_needs_a_running_machine_and_ends_with_it():
    sandbox = Sandbox()
    with pytest.raises(FailedPrecondition):
        sandbox.attach_console()
    with sandbox:
        sandbox.start()
        console = sandbox.attach_console()
        sandbox.stop()
        console.settimeout(5)
        while console.recv(4096):
            pass
        console.close()


def test_who_is_attached_is_not_left_with_a_machine_that_failed():
    with Sandbox.started() as sandbox, sandbox.attach_console() as console:
        os.kill(sandbox.asynchronous._life.running.link.device.pid, signal.SIGKILL)
        console.settimeout(5)
        while console.recv(4096):
            pass
        assert sandbox.state is State.FAILED
        assert "vsock device" in str(sandbox.asynchronous.failure)
        with pytest.raises(Unavailable, match="vsock device"):
            sandbox.attach_console()
