"""What crossed, as a table; and what each layer makes of its bytes."""

from __future__ import annotations

import json

import pytest

from sandbox_nb import InvalidArgument
from sandbox_nb.guest.proto.process_pb2 import StartRequest, StartResponse
from sandbox_nb.lens import calls, orders, packets
from sandbox_nb.lens.calls import Calls
from sandbox_nb.lens.crossings import SHOWN, Crossing, Crossings
from sandbox_nb.lens.orders import Orders
from sandbox_nb.ttrpc.frames import DATA, NO_DATA, REMOTE_CLOSED, REQUEST, RESPONSE, Frame
from sandbox_nb.ttrpc.proto.envelope_pb2 import Request, Response
from sandbox_nb.vsock import packet, trace
from sandbox_nb.vsock.packet import Header


def one(time_ns=0, layer="ttrpc", what="Process.Start request", where="#1", detail=""):
    return Crossing(time_ns, layer, True, what, where, 0, detail)


def test_layers_are_put_in_the_order_of_time_and_filtered():
    table = Crossings.ordered([one(3), one(1, "vsock", "RW"), one(2, "qmp", "device_add", detail="Disk0")])
    assert [row.time_ns for row in table] == [1, 2, 3]
    assert [row.layer for row in table.only(layers=["qmp", "vsock"])] == ["vsock", "qmp"]
    assert [row.time_ns for row in table.only(match="disk0")] == [2]
    assert [row.time_ns for row in table.only(last=2)] == [2, 3]
    assert table.only(last=0) == ()
    assert table.only(last=9) == table
    with pytest.raises(InvalidArgument, match="ip"):
        table.only(layers=["ip"])


def test_it_is_shown_as_text_and_as_html_that_cannot_be_broken_out_of():
    table = Crossings([one(detail="<script>alert(1)</script>")])
    assert "<script>alert(1)" in str(table)
    assert "&lt;script&gt;alert(1)" in table._repr_html_()
    assert "<script>" not in table._repr_html_()
    assert str(Crossings()) == "nothing has crossed" == Crossings()._repr_html_()


def test_a_display_has_the_last_rows_and_says_how_many_came_before():
    table = Crossings(one(number, where=f"#{number}") for number in range(SHOWN + 7))
    assert table._repr_html_().count("<tr ") == SHOWN
    assert "… 7 earlier ones" in table._repr_html_()
    assert str(table).count("\n") == SHOWN
    assert "#6 " not in str(table)


def test_saved_lines_are_json(tmp_path):
    Crossings([one(1, detail="a\nb"), one(2, "qmp")]).save(tmp_path / "x.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [(line["time_ns"], line["layer"], line["detail"]) for line in lines] == [
        (1, "ttrpc", "a\nb"),
        (2, "qmp", ""),
    ]


# ttrpc


def request(stream, message, *, timeout_nano=0, method="Start"):
    envelope = Request(
        service="sandbox_nb.process.v1.Process",
        method=method,
        payload=message.SerializeToString(),
        timeout_nano=timeout_nano,
    )
    return frame(stream, REQUEST, envelope.SerializeToString())


def frame(stream, kind, payload, flags=0):
    return Frame(stream, kind, flags, len(payload), payload)


def test_a_call_is_decoded_by_the_descriptor_of_its_method():
    seeing = Calls()
    asked = calls.crossing(seeing.see(1, True, request(5, StartRequest(id="p", args=[b"ls"]), timeout_nano=10**9)))
    assert (asked.what, asked.where) == ("Process.Start request", "#5")
    assert asked.detail == 'id: "p" args: "ls"  (within 1 s)'
    payload = Response(payload=StartResponse(pid=7).SerializeToString()).SerializeToString()
    answered = calls.crossing(seeing.see(2, False, frame(5, RESPONSE, payload)))
    assert (answered.what, answered.detail, answered.to_guest) == ("Process.Start response", "pid: 7", False)


def test_an_error_is_told_by_name_and_words():
    seeing = Calls()
    seeing.see(1, True, request(5, StartRequest()))
    response = Response()
    response.status.code, response.status.message = 5, "no such thing"
    answered = calls.crossing(seeing.see(2, False, frame(5, RESPONSE, response.SerializeToString())))
    assert answered.detail == "NOT_FOUND: no such thing"


def test_a_call_from_before_an_unknown_method_and_nonsense_are_shown_as_bytes():
    seeing = Calls()
    payload = Response(payload=b"\1\2").SerializeToString()
    before = calls.crossing(seeing.see(1, False, frame(3, RESPONSE, payload)))
    assert (before.what, before.detail) == ("a call from before response", "01 02")
    unknown = calls.crossing(seeing.see(2, True, request(5, StartRequest(id="p"), method="Vanish")))
    assert unknown.detail == "0a 01 70"
    seeing.see(3, True, request(7, StartRequest()))
    assert "no message" in calls.crossing(seeing.see(4, False, frame(7, RESPONSE, b"\xff"))).detail


def test_messages_of_a_stream_and_its_end_are_told_apart_and_the_stream_forgotten():
    seeing = Calls()
    seeing.see(1, True, request(5, StartRequest()))
    message = calls.crossing(seeing.see(2, False, frame(5, DATA, StartResponse(pid=1).SerializeToString())))
    end = calls.crossing(seeing.see(3, False, frame(5, DATA, b"", REMOTE_CLOSED | NO_DATA)))
    assert (message.what, message.detail) == ("Process.Start message", "pid: 1")
    assert (end.what, end.detail) == ("Process.Start end", "")
    assert seeing.see(4, False, frame(5, DATA, b"")).method is None


def test_a_large_message_is_told_and_not_kept():
    seen = Calls().see(1, True, request(5, StartRequest(args=[bytes(calls.MAX_KEPT)])))
    assert seen.kept == 0
    found = calls.crossing(seen)
    assert (found.what, found.detail) == ("Process.Start request", f"{found.size} bytes, not kept")


# vsock


def header(op, *, to_guest, length=0, buf_alloc=1000, fwd_cnt=0, flags=0):
    cids, ports = ((2, 3), (70, 1026)) if to_guest else ((3, 2), (1026, 70))
    return Header(*cids, *ports, length, packet.STREAM, op, flags, buf_alloc, fwd_cnt)


def told(*rows):
    file = trace.preamble()
    for number, (head, payload) in enumerate(rows):
        file += b"".join(map(bytes, trace.block(head.pack(), [memoryview(payload)], number)))
    return list(packets.crossings(file))


def test_packets_tell_the_credit_of_both_sides():
    rows = told(
        (header(packet.REQUEST, to_guest=True, buf_alloc=500), b""),
        (header(packet.RESPONSE, to_guest=False, buf_alloc=300), b""),
        (header(packet.RW, to_guest=True, length=200, buf_alloc=500), b"x" * 200),
        (header(packet.CREDIT_UPDATE, to_guest=False, buf_alloc=300, fwd_cnt=150), b""),
        (header(packet.SHUTDOWN, to_guest=False, flags=2, buf_alloc=300, fwd_cnt=200), b""),
        (header(packet.RST, to_guest=True), b""),
    )
    assert [row.what for row in rows] == ["REQUEST", "RESPONSE", "RW", "CREDIT_UPDATE", "SHUTDOWN", "RST"]
    assert {row.where for row in rows} == {"70:1026"}
    assert "host may send 300, guest 500" in rows[1].detail
    assert "host may send 100, guest 500" in rows[2].detail
    assert rows[2].detail.endswith("; 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'…")
    assert "host may send 250" in rows[3].detail
    assert "will no more send" in rows[4].detail
    assert [row.to_guest for row in rows] == [True, False, True, False, False, True]


def test_credit_is_not_guessed_for_a_connection_from_before():
    (row,) = told((header(packet.RW, to_guest=True, length=1, buf_alloc=5, fwd_cnt=6), b"\xff"))
    assert row.detail == r"buf_alloc=5 fwd_cnt=6; '\xff'"


def test_a_peer_that_shrinks_its_buffer_leaves_no_credit():
    rows = told(
        (header(packet.REQUEST, to_guest=True), b""),
        (header(packet.RESPONSE, to_guest=False, buf_alloc=300), b""),
        (header(packet.RW, to_guest=True, length=200), b"x" * 200),
        (header(packet.CREDIT_UPDATE, to_guest=False, buf_alloc=10), b""),
    )
    assert "host may send 0," in rows[3].detail


# QMP


def test_an_answer_has_the_name_of_its_command():
    seeing = Orders()
    asked = orders.crossing(seeing.see(1, True, b'{"execute": "device_add", "arguments": {"id": "d"}, "id": "a"}'))
    answered = orders.crossing(seeing.see(2, False, b'{"return": {}, "id": "a"}'))
    assert (asked.what, asked.detail, asked.to_guest) == ("device_add", '{"id": "d"}', True)
    assert (answered.what, answered.detail) == ("device_add return", "")
    seeing.see(3, True, b'{"execute": "query", "id": "b"}')
    failed = orders.crossing(seeing.see(4, False, b'{"error": {"desc": "no"}, "id": "b"}'))
    assert (failed.what, failed.detail) == ("query error", '{"desc": "no"}')


def test_events_and_what_was_asked_before_are_named():
    seeing = Orders()
    event = orders.crossing(seeing.see(1, False, b'{"event": "SHUTDOWN", "data": {"guest": true}}'))
    assert (event.what, event.detail) == ("event SHUTDOWN", '{"guest": true}')
    assert (
        orders.crossing(seeing.see(2, False, b'{"return": 1, "id": "z"}')).what == "a command from before return"
    )


def test_a_large_message_of_qmp_is_told_and_not_kept():
    text = json.dumps({"return": "x" * orders.MAX_KEPT, "id": "a"}).encode()
    seen = Orders().see(1, False, text)
    assert seen.kept == 0
    assert orders.crossing(seen).detail == f"{len(text)} bytes, not kept"
