"""Processes with a terminal."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest

from sandbox_nb.guest.proto import process_pb2 as pb
from sandbox_nb.ttrpc import Code, StatusError

# The sanitizers do not bear a child in its parent's memory, so the way of the shipped agent is walked apart.
pytestmark = pytest.mark.parametrize("native_agent", ["sanitized", "shipped"], indirect=True)


async def terminal(agent, *args, rows=24, columns=80, **fields):
    name, sock = await agent.stream()
    size = pb.WindowSize(rows=rows, columns=columns)
    return await agent.start(*args, stdin=name, stdout=name, tty=size, **fields), sock


async def read_until(sock, needle: bytes) -> bytes:
    data = b""
    while needle not in data:
        piece = await asyncio.get_running_loop().sock_recv(sock, 65536)
        assert piece, data
        data += piece
    return data


async def send(sock, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def test_a_terminal_is_one_in_control_and_of_the_size_asked_for(agent, tools):
    identity, sock = await terminal(
        agent, "sh", "-c", "tty; stty size; ps -o tty= -p $$; echo $TERM", rows=33, columns=101
    )
    lines = (await tools.read_all(sock)).split()
    assert lines[0].startswith(b"/dev/pts/")
    assert lines[1:3] == [b"33", b"101"]
    assert lines[3] == lines[0].removeprefix(b"/dev/")
    assert lines[4] == b"xterm-256color"
    assert (await agent.wait(identity)).exit_code == 0


async def test_lines_and_columns_are_left_to_the_terminal(agent, tools):
    _, sock = await terminal(agent, "env")
    output = await tools.read_all(sock)
    assert b"LINES" not in output
    assert b"COLUMNS" not in output


async def test_a_new_size_is_told_by_a_signal(agent, tools):
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    identity, sock = await terminal(agent, "sh", "-c", script)
    await read_until(sock, b"ready")
    await agent.processes.resize_pty(pb.ResizePtyRequest(id=identity, size=pb.WindowSize(rows=40, columns=132)))
    assert b"40 132" in await tools.read_all(sock)


async def test_the_interrupt_key_acts_while_output_floods(agent, tools):
    identity, sock = await terminal(agent, "sh", "-c", "yes flood")
    await read_until(sock, b"flood")
    await asyncio.sleep(0.2)  # every buffer on the way is full by now
    await send(sock, b"\x03")
    draining = asyncio.create_task(tools.read_all(sock))
    assert (await agent.wait(identity)).signal == signal.SIGINT
    await draining


async def test_the_interrupt_key_acts_even_if_nobody_reads_the_output(agent):
    identity, sock = await terminal(agent, "yes")
    await asyncio.sleep(0.3)
    await send(sock, b"\x03")
    assert (await agent.wait(identity)).signal == signal.SIGINT


async def test_the_end_of_the_hosts_input_is_the_end_of_file_key(agent, tools):
    identity, sock = await terminal(agent, "sh", "-c", "cat; echo over")
    await send(sock, b"line\n")
    sock.shutdown(socket.SHUT_WR)
    assert (await tools.read_all(sock)).endswith(b"over\r\n")
    assert (await agent.wait(identity)).exit_code == 0


async def test_close_io_is_the_end_of_file_key_too(agent, tools):
    identity, sock = await terminal(agent, "sh", "-c", "cat; echo over")
    await agent.processes.close_io(pb.CloseIORequest(id=identity))
    assert (await tools.read_all(sock)).endswith(b"over\r\n")


async def test_a_host_that_hangs_up_ends_the_session(agent):
    identity, sock = await terminal(agent, "sh", "-c", "echo ready; sleep 60")
    await read_until(sock, b"ready")
    sock.close()
    assert (await agent.wait(identity)).signal == signal.SIGHUP


async def test_all_output_comes_before_the_end(agent, tools):
    _, sock = await terminal(agent, "seq", "1", "20000")
    assert (await tools.read_all(sock)).replace(b"\r\n", b"\n") == b"".join(b"%d\n" % n for n in range(1, 20001))


async def test_a_process_without_a_terminal_cannot_be_resized(agent):
    identity = await agent.start("sleep", "60")
    for _ in range(2):
        with pytest.raises(StatusError) as info:
            await agent.processes.resize_pty(
                pb.ResizePtyRequest(id=identity, size=pb.WindowSize(rows=1, columns=1))
            )
        assert info.value.code == Code.FAILED_PRECONDITION
    await agent.kill(identity)


@pytest.mark.parametrize("size", [(0, 0), (65535, 65535)])
async def test_any_size_the_kernel_knows_is_taken(agent, tools, size):
    _, sock = await terminal(agent, "stty", "size", rows=size[0], columns=size[1])
    assert (await tools.read_all(sock)).split() == [b"%d" % side for side in size]
