from __future__ import annotations

import pytest

from sandbox_nb.vsock import packet
from sandbox_nb.vsock.connection import Connection, Event, ProtocolViolation, State, reset_reply
from sandbox_nb.vsock.packet import (
    HOST_CID,
    SHUTDOWN_BOTH,
    SHUTDOWN_RECEIVE,
    SHUTDOWN_SEND,
    STREAM,
    Header,
    unpack,
)

ALLOC = 1000


def from_guest(op, **fields):
    values = {"len": 0, "type": STREAM, "flags": 0, "buf_alloc": 500, "fwd_cnt": 0} | fields
    return Header(3, HOST_CID, 5000, 77, op=op, **values)


@pytest.fixture
def dialling():
    return Connection(3, 77, 5000, ALLOC)


@pytest.fixture
def requested(dialling):
    dialling.request()
    assert dialling.next_packet().op == packet.REQUEST
    return dialling


@pytest.fixture
def established(requested):
    assert requested.receive(from_guest(packet.RESPONSE)) is Event.CONNECTED
    return requested


def sent(connection):
    packets = []
    while header := connection.next_packet():
        packets.append(header)
    return packets


def test_a_host_asks_and_the_guest_accepts(dialling):
    dialling.request()
    assert dialling.unseen
    (request,) = sent(dialling)
    assert request == Header(HOST_CID, 3, 77, 5000, 0, STREAM, packet.REQUEST, 0, ALLOC, 0)
    assert not dialling.unseen
    assert dialling.receive(from_guest(packet.RESPONSE)) is Event.CONNECTED
    assert dialling.state is State.ESTABLISHED
    assert dialling.credit.peer_free == 500


def test_a_host_asks_and_the_guest_refuses(requested):
    assert requested.receive(from_guest(packet.RST)) is Event.RESET
    assert requested.state is State.CLOSED


def test_a_guest_asks_and_the_host_accepts(dialling):
    dialling.accept()
    assert [header.op for header in sent(dialling)] == [packet.RESPONSE]
    assert dialling.state is State.ESTABLISHED


def test_each_way_is_shut_by_itself(established):
    established.receive(from_guest(packet.SHUTDOWN, flags=SHUTDOWN_SEND))
    assert established.guest_shut == SHUTDOWN_SEND
    assert established.state is State.ESTABLISHED
    established.shutdown(SHUTDOWN_SEND)
    assert [(header.op, header.flags) for header in sent(established)] == [(packet.SHUTDOWN, SHUTDOWN_SEND)]
    established.shutdown(SHUTDOWN_RECEIVE)
    assert [header.flags for header in sent(established)] == [SHUTDOWN_BOTH]


def test_a_shutdown_is_said_once(established):
    for _ in range(3):
        established.shutdown(SHUTDOWN_SEND)
    assert len(sent(established)) == 1
    established.shutdown(SHUTDOWN_SEND)
    assert not established.pending


def test_what_waits_to_be_sent_does_not_pile_up(established):
    for _ in range(1000):
        established.receive(from_guest(packet.CREDIT_REQUEST))
        established.ask_for_credit()
        established.shutdown(SHUTDOWN_BOTH)
    assert [header.op for header in sent(established)] == [
        packet.CREDIT_UPDATE,
        packet.CREDIT_REQUEST,
        packet.SHUTDOWN,
    ]


def test_a_question_about_credit_is_answered(established):
    established.receive_data(from_guest(packet.RW, len=10))
    established.forwarded(10)
    established.receive(from_guest(packet.CREDIT_REQUEST))
    (answer,) = sent(established)
    assert (answer.op, answer.buf_alloc, answer.fwd_cnt) == (packet.CREDIT_UPDATE, ALLOC, 10)


def test_room_that_was_freed_is_announced_before_the_guest_runs_out(established):
    for _ in range(24):
        established.receive_data(from_guest(packet.RW, len=10))
        established.forwarded(10)
    assert not established.pending
    established.receive_data(from_guest(packet.RW, len=10))
    established.forwarded(10)
    assert [(header.op, header.fwd_cnt) for header in sent(established)] == [(packet.CREDIT_UPDATE, 250)]


def test_data_carries_the_credit_an_update_would(established):
    established.receive(from_guest(packet.CREDIT_REQUEST))
    header = unpack(established.data_header(7))
    assert (header.op, header.len, header.buf_alloc) == (packet.RW, 7, ALLOC)
    assert not established.pending


def test_data_beyond_the_credit_is_a_violation(established):
    established.receive_data(from_guest(packet.RW, len=ALLOC))
    with pytest.raises(ProtocolViolation, match="only 0 of 1000"):
        established.receive_data(from_guest(packet.RW, len=1))


def test_data_after_the_end_is_a_violation(established):
    established.receive(from_guest(packet.SHUTDOWN, flags=SHUTDOWN_SEND))
    with pytest.raises(ProtocolViolation, match="RW after SHUTDOWN"):
        established.receive_data(from_guest(packet.RW, len=1))


@pytest.mark.parametrize("op", [packet.REQUEST, packet.RESPONSE, 0, 8, 0xFFFF])
def test_what_an_open_connection_does_not_expect_is_a_violation(established, op):
    with pytest.raises(ProtocolViolation, match="while ESTABLISHED"):
        established.receive(from_guest(op))


@pytest.mark.parametrize("op", [packet.REQUEST, packet.SHUTDOWN, packet.CREDIT_UPDATE])
def test_what_an_unanswered_request_does_not_expect_is_a_violation(requested, op):
    with pytest.raises(ProtocolViolation, match="while REQUESTED"):
        requested.receive(from_guest(op))


@pytest.mark.parametrize("state", ["dialling", "requested"])
def test_data_before_the_connection_stands_is_a_violation(request, state):
    with pytest.raises(ProtocolViolation, match="RW while"):
        request.getfixturevalue(state).receive_data(from_guest(packet.RW, len=1))


def test_a_violation_changes_nothing(established):
    with pytest.raises(ProtocolViolation):
        established.receive(from_guest(packet.RESPONSE, buf_alloc=1, fwd_cnt=9))
    assert established.state is State.ESTABLISHED
    assert established.credit.peer_free == 500


def test_a_reset_takes_the_place_of_all_that_waited(established):
    established.shutdown(SHUTDOWN_SEND)
    assert established.reset().op == packet.RST
    assert established.state is State.CLOSED
    assert not established.pending


def test_a_stray_packet_is_answered_from_where_it_was_sent_to():
    answer = reset_reply(from_guest(packet.RW, len=5, type=2))
    assert answer == Header(HOST_CID, 3, 77, 5000, 0, 2, packet.RST, 0, 0, 0)
