"""Two sockets joined: each direction ends by itself, and a broken one takes both along."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from sandbox_nb import sockets


@pytest.fixture
async def joined():
    """The two far ends of a join, and the join."""
    near, inner = socket.socketpair()
    far, other = socket.socketpair()
    for sock in (near, inner, far, other):
        sock.setblocking(False)
    joining = asyncio.create_task(sockets.join(inner, other))
    yield near, far, joining
    joining.cancel()
    await asyncio.gather(joining, return_exceptions=True)
    assert inner.fileno() == other.fileno() == -1
    near.close()
    far.close()


async def send(sock, data):
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def send_for_ever(sock):
    while True:
        await send(sock, bytes(100_000))
        await asyncio.sleep(0)


async def receive(sock):
    data = b""
    while piece := await asyncio.get_running_loop().sock_recv(sock, 65536):
        data += piece
    return data


async def test_an_end_one_way_leaves_the_other_way_open(joined):
    near, far, joining = joined
    await send(near, b"question")
    near.shutdown(socket.SHUT_WR)
    assert await receive(far) == b"question"
    await send(far, b"answer")
    assert not joining.done()
    far.shutdown(socket.SHUT_WR)
    assert await receive(near) == b"answer"
    await joining


async def test_who_takes_no_more_may_still_speak(joined):
    near, far, joining = joined
    far.shutdown(socket.SHUT_RD)
    with pytest.raises(BrokenPipeError):
        await send_for_ever(near)
    await send(far, b"still here")
    far.shutdown(socket.SHUT_WR)
    assert await asyncio.get_running_loop().sock_recv(near, 100) == b"still here"
    await joining


async def test_who_does_not_read_is_waited_for(joined):
    near, far, _ = joined
    sending = asyncio.create_task(send(near, bytes(5_000_000)))
    await asyncio.sleep(0.2)
    assert not sending.done()
    receiving = asyncio.create_task(receive(far))
    await sending
    near.shutdown(socket.SHUT_WR)
    assert len(await receiving) == 5_000_000


async def test_a_connection_that_is_reset_ends_both_ways():
    with sockets.listen(0) as listener:
        client = socket.create_connection(listener.getsockname())
        inner, _ = await asyncio.get_running_loop().sock_accept(listener)
    other, far = socket.socketpair()
    other.setblocking(False)
    far.setblocking(False)
    joining = asyncio.create_task(sockets.join(inner, other))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    await asyncio.wait_for(joining, 10)
    assert await receive(far) == b""
    far.close()
