"""Processes with open pipes, terminals and streams."""

from __future__ import annotations

import signal
import socket

import pytest

from sandbox_nb import AlreadyExists, AsyncSandbox, DeadlineExceeded, InvalidArgument
from sandbox_nb.command import DEVNULL


def test_a_conversation(sb):
    with sb.popen('while read line; do echo "<$line>"; done; echo end >&2') as process:
        process.stdin.write(b"one\n")
        assert process.stdout.readline() == b"<one>\n"
        process.stdin.write(b"two\n")
        assert process.stdout.readline() == b"<two>\n"
        process.stdin.close()
        assert process.stderr.read() == b"end\n"
        assert process.wait() == 0
        assert process.returncode == 0


def test_half_closed_input_still_lets_the_rest_out(sb):
    with sb.popen("cat; sleep 0.2; echo tail") as process:
        process.stdin.write(b"head\n")
        process.stdin.close()
        assert process.stdout.read() == b"head\ntail\n"


def test_waiting_has_a_limit_and_can_be_repeated(sb):
    with sb.popen("sleep 984") as process:
        with pytest.raises(DeadlineExceeded, match="sleep 984"):
            process.wait(timeout=0.2)
        process.terminate()
        assert process.wait() == -signal.SIGTERM
        assert process.wait() == -signal.SIGTERM


def test_leaving_the_block_ends_the_process(sb):
    with sb.popen("sleep 983", stdin=DEVNULL) as process:
        assert process.stdin is None
    assert process.returncode == -signal.SIGKILL
    assert sb.run("pgrep -f 'sleep 983'").stdout == ""


def test_a_terminal_is_one(sb):
    with sb.popen("tty; stty size; read x; stty size", tty=(33, 101)) as process:
        assert process.stdout.readline().startswith(b"/dev/pts/")
        assert process.stdout.readline() == b"33 101\r\n"
        process.resize(10, 20)
        process.stdin.write(b"\n")
        assert b"10 20\r\n" in process.stdout.read()
        assert process.wait() == 0


def test_control_c_in_a_terminal_interrupts(sb):
    with sb.popen("echo ready; exec sleep 982", tty=(24, 80)) as process:
        assert process.stdout.readline() == b"ready\r\n"
        process.stdin.write(b"\x03")
        assert process.wait(timeout=5) == -signal.SIGINT


def test_a_process_claims_a_stream_by_name(sb):
    with sb.start_stream("chat") as stream:
        assert isinstance(stream, socket.socket)
        with sb.popen("tr a-z A-Z", stdin="chat", stdout="chat") as process:
            stream.sendall(b"hello")
            stream.shutdown(socket.SHUT_WR)
            assert stream.makefile("rb").read() == b"HELLO"
            assert process.wait() == 0


def test_an_id_is_good_for_one_stream(sb):
    with sb.start_stream("once"), pytest.raises(AlreadyExists, match="once"):
        sb.start_stream("once")


@pytest.mark.parametrize("identity", ["", "x" * 129, "a\nb"])
def test_an_id_that_cannot_be_one_is_refused(sb, identity):
    with pytest.raises(InvalidArgument):
        sb.start_stream(identity)


async def test_the_same_with_asyncio():
    async with AsyncSandbox("async") as sb:
        await sb.start()
        async with await sb.popen("cat; echo err >&2") as process:
            process.stdin.write(b"over and out")
            process.stdin.write_eof()
            assert await process.stdout.read() == b"over and out"
            assert await process.stderr.read() == b"err\n"
            assert await process.wait() == 0
        reader, writer = await sb.start_stream("raw")
        async with await sb.popen(["cat"], stdin="raw", stdout="raw"):
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
        writer.close()
        assert (await sb.run("echo $((6 * 7))")).stdout == "42\n"
