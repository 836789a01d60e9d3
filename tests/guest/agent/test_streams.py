"""Streams: the handshake, the claim, and what becomes of the bytes in both directions."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path

import pytest

from sandbox_nb.guest.proto import process_pb2 as pb


async def test_an_id_is_acknowledged_by_itself(agent):
    _, answer = await agent.greet(b"a" * 128)
    assert answer == b"a" * 128


@pytest.mark.parametrize("identity", [b"with space", b"tab\t", "ümlaut".encode(), b"nul\0"])
async def test_an_unprintable_id_is_refused_and_the_stream_closed(agent, tools, identity):
    sock, answer = await agent.greet(identity)
    assert b"printable" in answer
    assert await tools.read_all(sock) == b""


@pytest.mark.parametrize("length", [0, 129, 2**31, 2**32 - 1])
async def test_a_length_out_of_bounds_is_refused_at_once(agent, tools, length):
    sock = await agent.raw_stream()
    await asyncio.get_running_loop().sock_sendall(sock, struct.pack(">I", length))
    answer = await tools.read_all(sock)
    assert b"1 to 128 bytes" in answer[4:]
    assert struct.unpack(">I", answer[:4]) == (len(answer) - 4,)


async def test_an_id_is_good_for_one_stream_claimed_or_not(agent, tools):
    await agent.greet(b"once")
    sock, answer = await agent.greet(b"once")
    assert b"one-time" in answer
    assert await tools.read_all(sock) == b""
    await agent.wait(await agent.start("true", stdout="stream://once"))
    _, answer = await agent.greet(b"once")
    assert b"one-time" in answer


async def test_the_handshake_may_come_byte_by_byte(agent, tools):
    sock = await agent.raw_stream()
    for byte in struct.pack(">I", 4) + b"slow":
        await asyncio.get_running_loop().sock_sendall(sock, bytes([byte]))
        await asyncio.sleep(0.005)
    assert await tools.read_exactly(sock, 8) == struct.pack(">I", 4) + b"slow"


async def test_bytes_right_behind_the_id_belong_to_the_stream(agent, tools):
    stdin, feed = await agent.stream(behind=b"early ")
    stdout, out = await agent.stream()
    await agent.start("cat", stdin=stdin, stdout=stdout)
    await tools.send_and_end(feed, b"late")
    assert await tools.read_all(out) == b"early late"


async def test_a_stream_closed_after_its_bytes_can_still_be_claimed(agent, tools):
    stdin, feed = await agent.stream(behind=b"all there is")
    feed.close()
    await asyncio.sleep(0.05)
    stdout, out = await agent.stream()
    await agent.start("cat", stdin=stdin, stdout=stdout)
    assert await tools.read_all(out) == b"all there is"


async def test_a_stream_ended_before_the_claim_is_an_empty_input(agent, tools):
    stdin, feed = await agent.stream()
    feed.shutdown(socket.SHUT_WR)
    await asyncio.sleep(0.05)
    stdout, out = await agent.stream()
    await agent.start("sh", "-c", "cat; echo end", stdin=stdin, stdout=stdout)
    assert await tools.read_all(out) == b"end\n"


async def test_at_most_64_streams_wait_and_closing_one_makes_room(agent):
    streams = [await agent.stream() for _ in range(64)]
    _, answer = await agent.greet(b"too-many")
    assert answer.startswith(b"64 streams")
    before = agent.descriptors()
    streams[7][1].close()
    await agent.eventually(lambda: agent.descriptors() < before)
    _, answer = await agent.greet(b"not-too-many")
    assert answer == b"not-too-many"


async def test_connections_that_say_nothing_are_bounded_too(agent, tools):
    silent = [await agent.raw_stream() for _ in range(80)]
    await agent.eventually(lambda: any(sock.fileno() >= 0 and _is_closed(sock) for sock in silent))
    assert agent.descriptors() < 80 + 64
    for sock in silent:
        sock.close()
    await asyncio.sleep(0.05)
    name, sock = await agent.stream()
    await agent.start("echo", "on", stdout=name)
    assert await tools.read_all(sock) == b"on\n"


def _is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


async def test_both_directions_of_one_stream_end_by_themselves(agent, tools):
    name, sock = await agent.stream()
    identity = await agent.start("sh", "-c", "cat; echo bye", stdin=name, stdout=name)
    await tools.send_and_end(sock, b"hello ")
    assert await tools.read_all(sock) == b"hello bye\n"
    assert (await agent.wait(identity)).exit_code == 0


async def test_standard_error_may_share_the_stream_of_the_output(agent, tools):
    name, sock = await agent.stream()
    await agent.start("sh", "-c", "echo 1; echo 2 >&2; echo 3", stdout=name, stderr=name)
    assert await tools.read_all(sock) == b"1\n2\n3\n"


async def test_output_may_be_reopened_by_its_name(agent, tools):
    name, sock = await agent.stream()
    await agent.start("sh", "-c", "echo one; echo two > /dev/stdout", stdout=name)
    assert await tools.read_all(sock) == b"one\ntwo\n"


async def test_output_written_before_the_end_is_delivered_after_it(agent, tools):
    name, sock = await agent.stream()
    identity = await agent.start("head", "-c", "60000", "/dev/zero", stdout=name)
    assert (await agent.wait(identity)).exit_code == 0
    assert await tools.read_all(sock) == bytes(60000)


async def test_a_grandchild_keeps_the_stream_open_but_not_the_wait(agent, tools):
    name, sock = await agent.stream()
    identity = await agent.start("sh", "-c", "(sleep 0.5; echo late) & echo early", stdout=name)
    assert (await agent.wait(identity)).exit_code == 0
    assert await tools.read_all(sock) == b"early\nlate\n"


async def test_a_process_that_closes_its_input_makes_the_hosts_write_fail(agent):
    name, sock = await agent.stream()
    identity = await agent.start("sh", "-c", "exec <&-; sleep 60", stdin=name)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await _write_for_ever(sock)
    await agent.kill(identity, everything=True)


async def test_the_same_with_output_still_open_on_that_stream(agent, tools):
    name, sock = await agent.stream()
    identity = await agent.start(
        "sh", "-c", "exec <&-; read x < /dev/null; sleep 0.3; echo out", stdin=name, stdout=name
    )
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await _write_for_ever(sock)
    assert await tools.read_all(sock) == b"out\n"
    await agent.wait(identity)


async def test_a_host_that_closes_the_output_ends_the_writer(agent):
    name, sock = await agent.stream()
    identity = await agent.start("yes", stdout=name)
    await asyncio.get_running_loop().sock_recv(sock, 10)
    sock.close()
    assert (await agent.wait(identity)).signal == signal.SIGPIPE


async def test_close_io_ends_the_input(agent, tools):
    stdin, _ = await agent.stream(behind=b"some")
    stdout, out = await agent.stream()
    identity = await agent.start("cat", stdin=stdin, stdout=stdout)
    assert await tools.read_exactly(out, 4) == b"some"
    await agent.processes.close_io(pb.CloseIORequest(id=identity))
    await agent.processes.close_io(pb.CloseIORequest(id=identity))
    assert await tools.read_all(out) == b""
    assert (await agent.wait(identity)).exit_code == 0


async def test_a_slow_reader_stalls_its_own_process_only(agent, tools):
    name, stalled = await agent.stream()
    identity = await agent.start("cat", "/dev/zero", stdout=name)
    await asyncio.sleep(0.2)
    for _ in range(5):
        assert (await agent.run("echo", "quick")).out == b"quick\n"
    resident = _resident_pages(agent.child.pid)
    await asyncio.sleep(0.3)
    assert _resident_pages(agent.child.pid) <= resident + 64
    await agent.kill(identity)
    stalled.close()


async def test_a_stalled_reader_gets_everything_once_it_reads(agent, tools):
    name, sock = await agent.stream()
    identity = await agent.start("seq", "1", "300000", stdout=name)
    await asyncio.sleep(0.3)
    assert await tools.read_all(sock) == b"".join(b"%d\n" % number for number in range(1, 300001))
    assert (await agent.wait(identity)).exit_code == 0


async def test_a_process_slow_to_read_gets_all_that_a_departed_host_had_sent(agent, tools):
    data = os.urandom(150_000)
    stdin, feed = await agent.stream()
    stdout, out = await agent.stream()
    await agent.start("sh", "-c", "sleep 0.3; sha256sum", stdin=stdin, stdout=stdout)
    await asyncio.get_running_loop().sock_sendall(feed, data)
    feed.close()
    assert (await tools.read_all(out)).startswith(hashlib.sha256(data).hexdigest().encode())


async def test_an_idle_agent_does_not_spin(agent):
    """Ends that cannot be acted on yet must not be reported over and over."""
    name, _ = await agent.stream()
    await agent.start("sh", "-c", "head -c 400000 /dev/zero; exec >&-; sleep 60", stdout=name)
    await agent.stream()
    stdin, feed = await agent.stream(behind=bytes(200))
    await agent.start("sleep", "61", stdin=stdin)
    feed.close()
    await asyncio.sleep(0.2)
    before = _cpu_ticks(agent.child.pid)
    await asyncio.sleep(0.5)
    assert _cpu_ticks(agent.child.pid) - before < 10  # of 50


async def _write_for_ever(sock: socket.socket) -> None:
    while True:
        await asyncio.get_running_loop().sock_sendall(sock, b"more")
        await asyncio.sleep(0.01)


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _resident_pages(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


WRITES_LITTLE = r"""
import os, time
for number in range(10000, 30000):
    os.write(1, b"%d\n" % number)
time.sleep(1000)
"""


async def test_what_is_written_line_by_line_is_not_sent_so(agent, tools):
    def written():
        counters = Path(f"/proc/{agent.child.pid}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in counters)["syscw"])

    said = b"".join(b"%d\n" % number for number in range(10000, 30000))
    stdout, out = await agent.stream()
    before, began = written(), time.monotonic()
    await agent.start(sys.executable, "-c", WRITES_LITTLE, stdout=stdout)
    assert await tools.read_exactly(out, len(said)) == said
    # One every 2 ms, and each that was no small one with one behind it; a few are of calls.
    most = (time.monotonic() - began) / 0.002 + 2 * len(said) / 2048
    assert written() - before < most + 20
