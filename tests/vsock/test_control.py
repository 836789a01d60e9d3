from __future__ import annotations

import contextlib
import json
import socket

import pytest

from sandbox_nb.vsock import packet, trace


@pytest.fixture
def controller(rig):
    ours, theirs = socket.socketpair()
    rig.keep(ours).settimeout(5)
    rig.keep(theirs)
    rig.device.control(theirs)
    return ours


def ask(rig, controller, **question):
    controller.sendall(json.dumps(question).encode() + b"\n")
    rig.settle()
    return json.loads(controller.makefile().readline())


def test_statistics_tell_bytes_and_credit_of_each_connection(rig, controller):
    wire = rig.open()
    wire.host.sendall(b"12345")
    wire.packets()
    wire.send(packet.RW, b"123")
    answer = ask(rig, controller, id=7, command="statistics")
    assert answer["id"] == 7
    result = answer["result"]
    assert (result["attached"], result["running"], result["opened_by_host"]) == (True, True, 1)
    assert (result["bytes_to_guest"], result["bytes_to_host"]) == (5, 3)
    (stream,) = result["streams"]
    assert (stream["guest_port"], stream["state"], stream["bytes_to_guest"]) == (5000, "ESTABLISHED", 5)
    assert stream["credit_of_host"] == {"free": 256 * 1024 - 5, "crowded": False}


def test_bytes_of_connections_that_ended_still_count(rig, controller):
    wire = rig.open()
    wire.host.sendall(b"12345")
    wire.packets()
    wire.send(packet.RST)
    result = ask(rig, controller, command="statistics")["result"]
    assert (result["bytes_to_guest"], result["streams"]) == (5, [])


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"nonsense", "JSONDecodeError"),
        (b'{"id": 1}', "KeyError: 'command'"),
        (b'{"command": "explode"}', "KeyError: 'explode'"),
        (b'{"command": "statistics", "more": 1}', "TypeError"),
        (b'{"command": "trace", "file": "/no/such/folder/file"}', "FileNotFoundError"),
        (b'{"command": "trace", "file": true}', "IndexError"),
        (b"[]", "TypeError"),
        (b"5", "AttributeError"),
        (b"\xff", "UnicodeDecodeError"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_with_the_reason(rig, controller, line, error):
    controller.sendall(line + b"\n")
    rig.settle()
    assert error in json.loads(controller.makefile().readline())["error"]
    assert "result" in ask(rig, controller, command="statistics")


def test_a_trace_goes_to_a_file_that_comes_with_the_question(rig, controller, tmp_path):
    with (tmp_path / "trace").open("wb") as file:
        socket.send_fds(controller, [b'{"id": 1, "command": "trace", "file": true}\n'], [file.fileno()])
        rig.settle()
    assert json.loads(controller.makefile().readline()) == {"id": 1, "result": None}
    rig.open()
    assert list(trace.packets((tmp_path / "trace").read_bytes()))


def test_questions_may_come_in_pieces_and_in_bunches(rig, controller):
    lines = b'{"id": 1, "command": "statistics"}\n{"id": 2, "command": "statistics"}\n{"id": 3, '
    for byte in lines:
        controller.send(bytes([byte]))
        rig.settle()
    controller.sendall(b'"command": "statistics"}\n')
    rig.settle()
    answers = controller.makefile()
    assert [json.loads(answers.readline())["id"] for _ in range(3)] == [1, 2, 3]


def test_a_controller_that_reads_nothing_is_asked_nothing_and_stops_nobody(rig, controller):
    wires = [rig.open() for _ in range(50)]
    controller.settimeout(0)
    asked = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            asked += controller.send(b'{"command": "statistics"}\n' * 20)
            rig.settle()
    wires[0].host.sendall(b"unharmed")
    assert wires[0].packets()[0][1] == b"unharmed"
    questions, answers = asked // len(b'{"command": "statistics"}\n'), b""
    while answers.count(b"\n") < questions:  # and once it reads, it gets every answer
        answers += controller.recv(1 << 20)
        rig.settle()
    assert all("result" in json.loads(line) for line in answers.splitlines())


def test_the_device_ends_with_a_controller_that_does_not_wait_for_its_answer(rig, controller):
    controller.sendall(b'{"command": "statistics"}\n')
    controller.close()
    with pytest.raises(SystemExit) as caught:
        rig.settle()
    assert caught.value.code == 0


def test_the_device_ends_with_its_controller(rig, controller):
    controller.close()
    with pytest.raises(SystemExit) as caught:
        rig.settle()
    assert caught.value.code == 0
