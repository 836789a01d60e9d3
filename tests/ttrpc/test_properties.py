"""What must hold for any bytes, in any chunks, and for any interleaving of two ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections import defaultdict

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sandbox_nb.ttrpc import Client, Code, Server, StatusError
from sandbox_nb.ttrpc.connection import ClientConnection, ServerConnection
from sandbox_nb.ttrpc.events import Broken, Ended, Failed, Message, Requested, Responded, State
from sandbox_nb.ttrpc.frames import HEADER_SIZE, MAX_PAYLOAD
from sandbox_nb.ttrpc.proto.envelope_pb2 import Request, Response

from .sample_pb2 import Item
from .sample_ttrpc import SampleClient
from .service import SampleService

# A loaded machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LIMIT = HEADER_SIZE + MAX_PAYLOAD

payloads = st.one_of(
    st.binary(max_size=40),
    st.builds(Request, service=st.text(), method=st.text(), payload=st.binary()).map(Request.SerializeToString),
    st.builds(Response, payload=st.binary()).map(Response.SerializeToString),
)
lengths = st.one_of(st.none(), st.integers(0, 2**32 - 1), st.integers(MAX_PAYLOAD - 2, MAX_PAYLOAD + 2))


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Draw something like a frame, whose header may lie."""
    payload = draw(payloads)
    length = draw(lengths)
    stream = draw(st.one_of(st.integers(0, 12), st.integers(0, 2**32 - 1)))
    head = (len(payload) if length is None else length).to_bytes(4, "big") + stream.to_bytes(4, "big")
    return head + bytes([draw(st.integers(0, 4)), draw(st.integers(0, 255))]) + payload


streams_of_bytes = st.lists(st.one_of(frames(), st.binary(max_size=30))).map(b"".join)


def chop(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return data in pieces, torn at places that ``cuts`` say."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:stop] for start, stop in itertools.pairwise(places)]


def client_with_calls() -> ClientConnection:
    client = ClientConnection()
    for state in [State.UNARY, State.OPEN, State.HALF_CLOSED] * 2:
        client.send_request(state, "s", "m")
    return client


@PATIENT
@given(streams_of_bytes, st.lists(st.integers(0, 10**6)))
def test_any_bytes_in_any_chunks_mean_the_same_and_stay_within_the_limit(data: bytes, cuts: list[int]):
    for make in (client_with_calls, ServerConnection):
        torn, whole = make(), make()
        events = []
        for piece in chop(data, cuts):
            events += torn.receive_data(piece)
            assert len(torn._decoder._unfinished) <= LIMIT
        assert list(map(repr, events)) == list(map(repr, whole.receive_data(data)))
        assert torn._streams == whole._streams
        for event in events:
            assert isinstance(event, Requested | Message | Ended | Responded | Failed | Broken)


@settings(PATIENT, max_examples=40)
@given(streams_of_bytes)
def test_a_server_survives_any_client_and_a_client_any_server(data: bytes):
    async def run() -> None:
        async with Server(SampleService()) as server:
            bad, theirs = socket.socketpair()
            ours, ours_too = socket.socketpair()
            await server.attach(theirs)
            await server.attach(ours_too)
            async with await Client.from_socket(ours) as client:
                with bad:
                    bad.setblocking(False)
                    await asyncio.get_running_loop().sock_sendall(bad, data)
                    assert await SampleClient(client).echo(Item(number=1)) == Item(number=1)
        ours, bad = socket.socketpair()
        async with await Client.from_socket(ours) as client:
            calls = [asyncio.ensure_future(SampleClient(client).echo(Item())), client_stream(client)]
            await asyncio.sleep(0)
            with bad, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                bad.setblocking(False)
                await asyncio.get_running_loop().sock_sendall(bad, data)
            for result in await asyncio.gather(*calls, return_exceptions=True):
                assert not isinstance(result, BaseException) or isinstance(result, StatusError)

    asyncio.run(run())


async def client_stream(client: Client) -> list[Item]:
    async with SampleClient(client).echo_all() as stream:
        await stream.send(Item())
        return [item async for item in stream]


Log = dict[str, dict[int, list[bytes]]]
"""Whose messages, on which stream."""


class TwoEnds(RuleBasedStateMachine):
    """A client and a server with a lossless, torn and arbitrarily slow line each way between them."""

    @initialize()
    def begin(self) -> None:
        self.client, self.server = ClientConnection(), ServerConnection()
        self.to_server, self.to_client = bytearray(), bytearray()
        self.sent: dict[str, dict[int, list[bytes]]] = {"client": defaultdict(list), "server": defaultdict(list)}
        self.received: dict[str, dict[int, list[bytes]]] = {
            "client": defaultdict(list),
            "server": defaultdict(list),
        }
        self.left: set[int] = set()
        self.cut: set[int] = set()

    def pick(self, end: ClientConnection | ServerConnection, number: int) -> int | None:
        streams = list(end._streams)
        return streams[number % len(streams)] if streams else None

    @rule(state=st.sampled_from(State), payload=st.binary(max_size=20))
    def open(self, state: State, payload: bytes) -> None:
        _, data = self.client.send_request(state, "s", "m", payload)
        self.to_server += data

    @rule(number=st.integers(0, 100), payload=st.binary(max_size=20))
    def client_says(self, number: int, payload: bytes) -> None:
        stream = self.pick(self.client, number)
        if stream is not None and self.client.may_send(stream):
            self.to_server += self.client.send_message(stream, payload)
            self.sent["client"][stream].append(payload)

    @rule(number=st.integers(0, 100))
    def client_ends(self, number: int) -> None:
        stream = self.pick(self.client, number)
        if stream is not None and self.client.may_send(stream):
            self.to_server += self.client.send_end(stream)

    @rule(number=st.integers(0, 100))
    def client_leaves(self, number: int) -> None:
        stream = self.pick(self.client, number)
        if stream is not None:
            self.to_server += self.client.leave(stream)
            self.left.add(stream)

    @rule(number=st.integers(0, 100), payload=st.binary(max_size=20))
    def server_says(self, number: int, payload: bytes) -> None:
        stream = self.pick(self.server, number)
        if stream is not None and self.server.may_send(stream):
            self.to_client += self.server.send_message(stream, payload)
            self.sent["server"][stream].append(payload)

    @rule(number=st.integers(0, 100), how=st.sampled_from(["end", "answer", "fail"]))
    def server_ends(self, number: int, how: str) -> None:
        stream = self.pick(self.server, number)
        if stream is None:
            return
        self.cut.add(stream)
        if how == "end" and self.server.may_send(stream):
            self.to_client += self.server.send_end(stream)
        elif how == "answer":
            self.to_client += self.server.send_response(stream, b"r")
        else:
            self.to_client += self.server.send_error(stream, StatusError(Code.ABORTED, "x"))

    @rule(size=st.integers(1, 60))
    def line_to_server(self, size: int) -> None:
        self.deliver("server", self.server, self.to_server, size)

    @rule(size=st.integers(1, 60))
    def line_to_client(self, size: int) -> None:
        self.deliver("client", self.client, self.to_client, size)

    def deliver(self, name: str, end: ClientConnection | ServerConnection, line: bytearray, size: int) -> None:
        piece = bytes(line[:size])
        del line[:size]
        for event in end.receive_data(piece):
            assert not isinstance(event, Failed | Broken), event
            if isinstance(event, Message):
                self.received[name][event.stream].append(event.payload)

    @precondition(lambda self: not self.to_server and not self.to_client)
    @invariant()
    def agree_once_all_has_arrived(self) -> None:
        server = {stream: state for stream, state in self.server._streams.items() if stream not in self.left}
        assert self.client._streams == server

    @invariant()
    def messages_arrive_in_order(self) -> None:
        for sender, receiver in (("client", "server"), ("server", "client")):
            for stream, messages in self.received[receiver].items():
                assert messages == self.sent[sender][stream][: len(messages)]

    def teardown(self) -> None:
        self.deliver("server", self.server, self.to_server, len(self.to_server))
        self.deliver("client", self.client, self.to_client, len(self.to_client))
        self.agree_once_all_has_arrived()
        for stream, messages in self.sent["client"].items():
            if stream not in self.cut:
                assert self.received["server"][stream] == messages
        for stream, messages in self.sent["server"].items():
            if stream not in self.left:
                assert self.received["client"][stream] == messages


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(PATIENT, max_examples=150, stateful_step_count=40)
