"""The sans-IO core: two ends joined in memory, and each end against a peer that does as it likes."""

from __future__ import annotations

import itertools

import pytest
from google.protobuf.any_pb2 import Any

from sandbox_nb.ttrpc import Code, ProtocolError, StatusError
from sandbox_nb.ttrpc.connection import ClientConnection, ServerConnection
from sandbox_nb.ttrpc.events import Broken, Ended, Failed, Message, Requested, Responded, State
from sandbox_nb.ttrpc.frames import (
    DATA,
    MAX_PAYLOAD,
    NO_DATA,
    REMOTE_CLOSED,
    REMOTE_OPEN,
    REQUEST,
    RESPONSE,
    FrameDecoder,
    encode_frame,
)
from sandbox_nb.ttrpc.proto.envelope_pb2 import Request, Response

REQUEST_PAYLOAD = Request(service="s", method="m", payload=b"p").SerializeToString()
RESPONSE_PAYLOAD = Response(payload=b"r").SerializeToString()


class Pair:
    """A client and a server, and one stream between them that begins in ``state``."""

    def __init__(self, state: State) -> None:
        self.client, self.server = ClientConnection(), ServerConnection()
        self.stream, data = self.client.send_request(state, "s", "m", b"p")
        [event] = self.server.receive_data(data)
        assert event == Requested(self.stream, state, Request(service="s", method="m", payload=b"p"))

    def states(self) -> tuple[State | None, State | None]:
        return self.client._streams.get(self.stream), self.server._streams.get(self.stream)


# Every step of the protocol, how it is made, and what the other side sees.
STEPS = {
    "client message": (lambda p: p.server.receive_data(p.client.send_message(1, b"m")), [Message(1, b"m")]),
    "client end": (lambda p: p.server.receive_data(p.client.send_end(1)), [Ended(1)]),
    "server message": (lambda p: p.client.receive_data(p.server.send_message(1, b"")), [Message(1, b"")]),
    "server end": (lambda p: p.client.receive_data(p.server.send_end(1)), [Ended(1)]),
    "response": (lambda p: p.client.receive_data(p.server.send_response(1, b"r")), [Responded(1, b"r", None)]),
}
AFTER = {
    (State.UNARY, "response"): None,
    (State.OPEN, "client message"): State.OPEN,
    (State.OPEN, "client end"): State.HALF_CLOSED,
    (State.OPEN, "server message"): State.OPEN,
    (State.OPEN, "server end"): None,
    (State.OPEN, "response"): None,
    (State.HALF_CLOSED, "server message"): State.HALF_CLOSED,
    (State.HALF_CLOSED, "server end"): None,
    (State.HALF_CLOSED, "response"): None,
}


@pytest.mark.parametrize(("state", "step"), list(itertools.product(State, STEPS)))
def test_each_step_leads_both_ends_to_the_same_state_or_is_refused(state: State, step: str):
    pair = Pair(state)
    take, seen = STEPS[step]
    if (state, step) in AFTER:
        assert take(pair) == seen
        assert pair.states() == (AFTER[state, step],) * 2
    else:
        with pytest.raises(StatusError, match=state.name) as caught:
            take(pair)
        assert caught.value.code is Code.FAILED_PRECONDITION
        assert pair.states() == (state, state)


@pytest.mark.parametrize("step", STEPS)
def test_no_step_is_allowed_on_a_stream_that_is_over(step: str):
    pair = Pair(State.OPEN)
    pair.client.receive_data(pair.server.send_response(1, b""))
    with pytest.raises(StatusError, match="is over") as caught:
        STEPS[step][0](pair)
    assert caught.value.code is Code.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("state", "flags"), [(State.UNARY, 0), (State.HALF_CLOSED, REMOTE_CLOSED), (State.OPEN, REMOTE_OPEN)]
)
def test_the_flags_of_a_request_say_the_state(state: State, flags: int):
    _, data = ClientConnection().send_request(state, "s", "m", b"p")
    assert data == encode_frame(1, REQUEST, flags, REQUEST_PAYLOAD)


def test_ids_are_odd_and_increase_and_run_out():
    client = ClientConnection()
    assert [client.send_request(State.UNARY, "s", "m")[0] for _ in range(3)] == [1, 3, 5]
    client._next_stream = 2**32 - 1
    assert client.send_request(State.UNARY, "s", "m")[0] == 2**32 - 1
    with pytest.raises(StatusError, match="connect anew") as caught:
        client.send_request(State.UNARY, "s", "m")
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


def test_time_and_metadata_travel_in_the_request():
    _, data = ClientConnection().send_request(
        State.UNARY, "s", "m", b"p", timeout_nano=5, metadata={"A": "1", "b": ["2", "3"]}
    )
    [event] = ServerConnection().receive_data(data)
    assert event.request.timeout_nano == 5
    assert [(pair.key, pair.value) for pair in event.request.metadata] == [("a", "1"), ("b", "2"), ("b", "3")]


def test_a_request_over_the_limit_opens_nothing_and_uses_no_id():
    client = ClientConnection()
    with pytest.raises(StatusError):
        client.send_request(State.UNARY, "s", "m", bytes(MAX_PAYLOAD))
    assert client.send_request(State.UNARY, "s", "m")[0] == 1


def test_a_response_over_the_limit_leaves_the_stream_to_be_answered():
    pair = Pair(State.UNARY)
    with pytest.raises(StatusError) as caught:
        pair.server.send_response(1, bytes(MAX_PAYLOAD))
    [event] = pair.client.receive_data(pair.server.send_error(1, caught.value))
    assert event.error.code is Code.RESOURCE_EXHAUSTED


def test_an_error_too_large_to_send_goes_without_its_details():
    pair = Pair(State.UNARY)
    huge = StatusError(Code.ABORTED, "x" * 3000, [Any(value=bytes(MAX_PAYLOAD))])
    [event] = pair.client.receive_data(pair.server.send_error(1, huge))
    assert (event.error.code, event.error.message, event.error.details) == (Code.ABORTED, "x" * 1024, ())


# -- what peers may do beyond what ours do


def test_a_closing_frame_may_carry_a_message():
    pair = Pair(State.OPEN)
    assert pair.server.receive_data(encode_frame(1, DATA, REMOTE_CLOSED, b"last")) == [
        Message(1, b"last"),
        Ended(1),
    ]
    assert pair.client.receive_data(encode_frame(1, DATA, REMOTE_CLOSED, b"")) == [Message(1, b""), Ended(1)]


def test_a_data_frame_without_data_is_no_message():
    pair = Pair(State.OPEN)
    assert pair.server.receive_data(encode_frame(1, DATA, NO_DATA, b"ignored")) == []
    assert pair.states() == (State.OPEN, State.OPEN)


def test_unknown_types_and_flags_are_ignored():
    pair = Pair(State.OPEN)
    for end in (pair.client, pair.server):
        assert end.receive_data(encode_frame(1, 9, 0, b"?")) == []
        assert end.receive_data(encode_frame(1, DATA, 0xF8, b"m")) == [Message(1, b"m")]
    assert pair.server.receive_data(encode_frame(99, 9, 0, b"?")) == []


def test_a_status_of_ok_is_no_error():
    pair = Pair(State.UNARY)
    response = Response(payload=b"r")
    response.status.message = "fine"
    data = encode_frame(1, RESPONSE, 0, response.SerializeToString())
    assert pair.client.receive_data(data) == [Responded(1, b"r", None)]


# -- a client against its server


def test_frames_for_a_stream_that_was_left_are_ignored():
    pair = Pair(State.OPEN)
    assert pair.client.leave(1) == encode_frame(1, DATA, REMOTE_CLOSED | NO_DATA, b"")
    assert pair.client.leave(1) == b""
    assert pair.client.receive_data(pair.server.send_message(1, b"m") + pair.server.send_response(1, b"r")) == []


@pytest.mark.parametrize("state", [State.UNARY, State.HALF_CLOSED])
def test_a_stream_whose_last_message_is_sent_is_left_without_a_word(state: State):
    assert Pair(state).client.leave(1) == b""


@pytest.mark.parametrize(
    ("state", "frame", "message"),
    [
        (State.UNARY, (DATA, 0, b"m"), "a message of the server on stream 1, which is UNARY"),
        (State.UNARY, (DATA, REMOTE_CLOSED | NO_DATA, b""), "the server's end of the stream on stream 1"),
        (State.OPEN, (REQUEST, 0, REQUEST_PAYLOAD), "only clients send them"),
        (State.OPEN, (RESPONSE, 0, b"\xff"), "no Response message"),
    ],
)
def test_a_violation_of_the_server_costs_the_client_that_stream(state: State, frame: tuple, message: str):
    client = Pair(state).client
    other, _ = client.send_request(State.UNARY, "s", "m")
    [failed] = client.receive_data(encode_frame(1, *frame))
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, ProtocolError)
    assert message in failed.error.message
    assert failed.reply == (b"" if state is State.UNARY else encode_frame(1, DATA, REMOTE_CLOSED | NO_DATA, b""))
    assert not client.is_open(1)
    assert client.is_open(other)


@pytest.mark.parametrize("stream", [0, 2, 3, 2**32 - 1])
def test_a_frame_on_a_stream_that_was_never_opened_breaks_the_connection(stream: int):
    client = Pair(State.UNARY).client
    answer = encode_frame(1, RESPONSE, 0, RESPONSE_PAYLOAD)
    events = client.receive_data(answer + encode_frame(stream, DATA, 0, b"") + answer)
    assert events[0] == Responded(1, b"r", None)
    assert isinstance(events[1], Broken)
    assert f"stream {stream}, which was never opened" in str(events[1].error)
    assert len(events) == 2
    assert client.receive_data(answer) == []


# -- a server against its client


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ((2, REQUEST, 0, REQUEST_PAYLOAD), "the ids of clients are odd"),
        ((1, REQUEST, 0, REQUEST_PAYLOAD), "ids must increase"),
        ((3, REQUEST, 0, b"\xff"), "no Request message"),
        ((3, DATA, 0, b""), "which was never opened"),
        ((2, DATA, 0, b""), "which was never opened"),
        ((3, RESPONSE, 0, RESPONSE_PAYLOAD), "which was never opened"),
        ((1, RESPONSE, 0, RESPONSE_PAYLOAD), "only servers send them"),
        ((1, DATA, 0, b"m"), "a message of the client on stream 1, which is UNARY"),
    ],
)
def test_a_violation_of_the_client_is_answered_on_its_stream(frame: tuple, message: str):
    server = Pair(State.UNARY).server
    [failed] = server.receive_data(encode_frame(*frame))
    assert isinstance(failed, Failed)
    assert failed.error.code is Code.INVALID_ARGUMENT
    assert message in failed.error.message
    [reply] = FrameDecoder().receive_data(failed.reply)
    assert (reply.stream, reply.type) == (frame[0], RESPONSE)
    assert Response.FromString(reply.payload).status.code == Code.INVALID_ARGUMENT
    assert server.is_open(1) == (frame[0] != 1)
    [event] = server.receive_data(encode_frame(5, REQUEST, 0, REQUEST_PAYLOAD))
    assert isinstance(event, Requested)


def test_the_id_of_a_refused_request_is_used_up():
    server = ServerConnection()
    server.receive_data(encode_frame(7, REQUEST, 0, b"\xff"))
    [failed] = server.receive_data(encode_frame(5, REQUEST, 0, REQUEST_PAYLOAD))
    assert "ids must increase" in failed.error.message


def test_late_frames_of_a_client_are_ignored():
    pair = Pair(State.OPEN)
    late = pair.client.send_message(1, b"m") + pair.client.send_end(1)
    pair.server.send_response(1, b"")
    assert pair.server.receive_data(late) == []


def test_a_server_bounds_how_many_streams_are_open():
    server = ServerConnection(max_streams=2)
    requests = [encode_frame(stream, REQUEST, 0, REQUEST_PAYLOAD) for stream in (1, 3, 5, 7)]
    events = server.receive_data(b"".join(requests[:3]))
    assert [type(event) for event in events] == [Requested, Requested, Failed]
    assert events[2].error.code is Code.RESOURCE_EXHAUSTED
    server.send_response(1, b"")
    assert [type(event) for event in server.receive_data(requests[3])] == [Requested]


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_whole_conversations_agree_at_any_chunk_size(size: int):
    client, server = ClientConnection(), ServerConnection()
    seen: list = []

    def carry(data: bytes, to: ClientConnection | ServerConnection) -> None:
        for start in range(0, len(data), size):
            seen.extend(to.receive_data(data[start : start + size]))

    for state in State:
        stream, data = client.send_request(state, "s", "m", b"x" * 50)
        carry(data, server)
        if state is State.OPEN:
            carry(client.send_message(stream, b"one") + client.send_end(stream), server)
        if state is not State.UNARY:
            carry(server.send_message(stream, b"two"), client)
        carry(server.send_response(stream, b"three"), client)
    names = " ".join(type(event).__name__ for event in seen)
    assert names == "Requested Responded Requested Message Ended Message Responded Requested Message Responded"
    assert client._streams == server._streams == {}
