"""The control connection against a host that makes mistakes, or means harm."""

from __future__ import annotations

import asyncio
import os
import random
import struct

import pytest

from sandbox_nb.guest.proto import process_pb2 as pb
from sandbox_nb.ttrpc import Code, StatusError
from sandbox_nb.ttrpc.proto.envelope_pb2 import Request, Response

REQUEST, RESPONSE, DATA = 1, 2, 3
CLOSED, OPEN, NO_DATA = 1, 2, 4
INFO = ("containerd.vminitd.services.system.v1.System", "Info")
EVENTS = ("nerdbox.services.vmevents.v1.Events", "Stream")
WAIT = ("sandbox_nb.process.v1.Process", "Wait")


def frame(stream: int, kind: int, flags: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">IIBB", len(payload), stream, kind, flags) + payload


def request(stream: int, path: tuple[str, str] = INFO, payload: bytes = b"", flags: int = 0, **fields) -> bytes:
    message = Request(service=path[0], method=path[1], payload=payload, **fields)
    return frame(stream, REQUEST, flags, message.SerializeToString())


class Peer:
    """The raw other end of the agent's connection."""

    def __init__(self, sock, tools):
        self.sock, self.tools = sock, tools

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self) -> tuple[int, int, int, bytes]:
        length, stream, kind, flags = struct.unpack(">IIBB", await self.tools.read_exactly(self.sock, 10))
        return stream, kind, flags, await self.tools.read_exactly(self.sock, length)

    async def response(self) -> tuple[int, int, str]:
        """Stream, status code and message of the next frame, which is a response."""
        stream, kind, _, payload = await self.receive()
        assert kind == RESPONSE
        status = Response.FromString(payload).status
        return stream, status.code, status.message

    async def works(self, stream: int) -> None:
        await self.send(request(stream))
        assert (await self.response())[:2] == (stream, 0)


@pytest.fixture
async def peer(bare_agent, tools):
    sock = await bare_agent.accept()
    yield Peer(sock, tools)
    sock.close()


async def test_system_info_is_answered_before_anything_else(new_agent):
    info = await new_agent.system.info()
    assert (info.version, info.kernel_version) == ("test", os.uname().release)


async def test_requests_in_one_piece_are_answered_in_order(peer):
    await peer.send(b"".join(request(stream) for stream in range(1, 2001, 2)))
    for stream in range(1, 2001, 2):
        assert (await peer.response())[:2] == (stream, 0)


async def test_a_request_may_come_byte_by_byte(peer):
    for byte in request(1):
        await peer.send(bytes([byte]))
    assert (await peer.response())[:2] == (1, 0)


@pytest.mark.parametrize("path", [("no.such.Service", "Info"), (INFO[0], "NoMethod"), ("", ""), ("x" * 5000, "y")])
async def test_what_is_not_offered_is_unimplemented(peer, path):
    await peer.send(request(1, path))
    stream, code, message = await peer.response()
    assert (stream, code) == (1, Code.UNIMPLEMENTED)
    assert (path[1] if path[0] == INFO[0] else path[0])[:100] in message


@pytest.mark.parametrize("stream", [0, 2, 2**32 - 2])
async def test_an_even_stream_id_is_refused(peer, stream):
    await peer.send(request(stream))
    assert (await peer.response())[:2] == (stream, Code.INVALID_ARGUMENT)


async def test_a_stream_id_is_used_once_and_grows(peer):
    await peer.works(5)
    for stream in (5, 3, 1):
        await peer.send(request(stream))
        assert (await peer.response())[:2] == (stream, Code.INVALID_ARGUMENT)
    await peer.works(7)


@pytest.mark.parametrize(
    "payload", [b"\xff", b"\x0a\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x00\x01", b"\x0b\x0c", b"\x09\x01"]
)
async def test_a_broken_request_is_an_invalid_argument(peer, payload):
    await peer.send(frame(1, REQUEST, 0, payload))
    assert (await peer.response())[:2] == (1, Code.INVALID_ARGUMENT)
    await peer.works(3)


async def test_a_broken_payload_is_an_invalid_argument(peer):
    await peer.send(request(1, WAIT, b"\x0a\xff"))
    assert (await peer.response())[:2] == (1, Code.INVALID_ARGUMENT)


async def test_an_oversized_message_is_skipped_and_the_connection_survives(peer):
    size = 4 * 1024 * 1024 + 1
    sending = asyncio.create_task(peer.send(struct.pack(">IIBB", size, 1, REQUEST, 0) + bytes(size)))
    assert (await peer.response())[:2] == (1, Code.RESOURCE_EXHAUSTED)
    await sending
    await peer.works(3)


async def test_a_message_of_the_largest_size_is_taken(peer):
    path = "sandbox_nb.process.v1.Process", "Wait"
    room = 4 * 1024 * 1024 - len(Request(service=path[0], method=path[1]).SerializeToString()) - 5
    await peer.send(request(1, path, pb.WaitRequest(id="x" * (room - 5)).SerializeToString()))
    stream, code, message = await peer.response()
    assert (stream, code) == (1, Code.NOT_FOUND)
    assert len(message) < 500


async def test_flags_of_the_wrong_kind_of_call_are_refused(peer):
    await peer.send(request(1, flags=CLOSED))
    assert (await peer.response())[:2] == (1, Code.INVALID_ARGUMENT)
    await peer.send(request(3, EVENTS))
    assert (await peer.response())[:2] == (3, Code.INVALID_ARGUMENT)


async def test_data_for_a_stream_that_never_was_is_refused_and_for_an_ended_one_ignored(peer):
    await peer.send(frame(9, DATA, 0, b"x"))
    assert (await peer.response())[:2] == (9, Code.INVALID_ARGUMENT)
    await peer.works(11)
    await peer.send(frame(11, DATA, CLOSED, b"late"))
    await peer.works(13)


async def test_data_after_the_end_of_a_stream_ends_the_call(peer):
    await peer.send(request(1, EVENTS, flags=CLOSED))
    await peer.send(frame(1, DATA, 0, b"more"))
    assert (await peer.response())[:2] == (1, Code.INVALID_ARGUMENT)
    await peer.works(3)


async def test_frames_of_a_later_version_are_skipped(peer):
    await peer.send(frame(1, 77, 0xFF, b"who knows"))
    await peer.works(3)


@pytest.mark.parametrize("junk", [b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\x01"])
async def test_what_is_no_frame_ends_the_connection_and_the_agent_calls_again(bare_agent, peer, tools, junk):
    await peer.send(junk)
    assert await tools.read_all(peer.sock) == b""
    await bare_agent.connect()
    assert (await bare_agent.system.info()).version == "test"


async def test_a_host_that_leaves_is_called_again_and_finds_its_processes(agent):
    identity = await agent.start("sleep", "60")
    waiting = asyncio.create_task(agent.wait(identity))
    await asyncio.sleep(0.05)
    await agent.client.aclose()
    with pytest.raises(StatusError):
        await waiting
    await agent.connect()
    await agent.kill(identity)
    assert (await agent.wait(identity)).signal == 9


async def test_the_agent_calls_until_somebody_listens(bare_agent):
    sock = await bare_agent.accept()
    path = bare_agent.folder / "1025"
    path.unlink()
    bare_agent.listener.close()
    sock.close()
    await asyncio.sleep(0.3)
    bare_agent.listener = type(sock)(sock.family, sock.type)
    bare_agent.listener.setblocking(False)
    bare_agent.listener.bind(str(path))
    bare_agent.listener.listen()
    await bare_agent.connect()
    assert (await bare_agent.system.info()).version == "test"


async def test_calls_in_flight_are_bounded(agent):
    identity = await agent.start("sleep", "60")
    waits = [asyncio.create_task(agent.wait(identity)) for _ in range(1030)]
    done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    assert all(task.exception().code == Code.RESOURCE_EXHAUSTED for task in done)
    await asyncio.sleep(0.2)
    assert sum(task.done() for task in waits) == 6
    await agent.client.aclose()
    await asyncio.gather(*waits, return_exceptions=True)
    await agent.connect()
    await agent.kill(identity)


async def test_answers_nobody_reads_stop_the_reading_not_the_agent(bare_agent, peer):
    """A host that only writes is held back by the socket, and the agent stays small."""
    many = b"".join(request(stream) for stream in range(1, 400_001, 2))
    sending = asyncio.create_task(peer.send(many))
    await asyncio.sleep(1)
    assert not sending.done()
    for stream in range(1, 400_001, 2):
        assert (await peer.receive())[0] == stream
    await sending


async def test_streams_nobody_reads_are_cut_off(peer):
    """Events come without being asked for, so only their end keeps them from filling the memory."""
    setup, start = ("sandbox_nb.setup.v1.Setup", "Configure"), ("sandbox_nb.process.v1.Process", "Start")
    await peer.send(request(1, setup))
    assert (await peer.response())[:2] == (1, 0)
    subscriptions = range(101, 117, 2)
    await peer.send(b"".join(request(stream, EVENTS, flags=CLOSED) for stream in subscriptions))
    for number in range(300):
        message = pb.StartRequest(id=f"{number:064}", args=[b"sleep", b"3"])
        await peer.send(request(201 + 2 * number, start, message.SerializeToString()))
        while (await peer.receive())[1] != RESPONSE:
            pass
    last = 400_001
    sending = asyncio.create_task(peer.send(b"".join(request(stream) for stream in range(1001, last + 2, 2))))
    await asyncio.sleep(4)
    assert not sending.done()
    ended = set()
    while (answer := await peer.receive())[0] != last:
        if answer[0] in subscriptions and answer[1] == RESPONSE:
            assert Response.FromString(answer[3]).status.code == Code.RESOURCE_EXHAUSTED
            ended.add(answer[0])
    assert ended == set(subscriptions)


async def test_random_bytes_never_harm_the_agent(bare_agent):
    chance = random.Random(20)
    good = [
        request(1),
        request(3, WAIT, pb.WaitRequest(id="x").SerializeToString()),
        request(5, EVENTS, flags=CLOSED),
    ]
    for _ in range(300):
        sock = await bare_agent.accept()
        data = bytearray(b"".join(chance.choices(good, k=4)))
        for _ in range(chance.randrange(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        await asyncio.get_running_loop().sock_sendall(sock, data)
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        sock.close()
    await bare_agent.connect()
    assert (await bare_agent.system.info()).version == "test"
