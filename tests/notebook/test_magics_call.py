"""``%sandbox call``: methods of the agent by their descriptors, of every kind."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.vm


def test_the_methods_are_listed_with_what_they_take_and_give(running):
    lines = running.run("%sandbox call").stdout.splitlines()
    assert "System.Info {} → {version, kernel_version}" in lines
    assert "Events.Stream {} → stream of {timestamp, namespace, topic, event}" in lines


def test_a_call_prints_its_answer_and_binds_it(running):
    said = running.run("%sandbox call --out info System.Info")
    assert json.loads(said.stdout) == running.value("info")
    assert running.value("info['kernel_version']") == running.run("%sandbox run -- uname -r").stdout.strip()
    assert running.run("%sandbox call --quiet containerd.vminitd.services.system.v1.System.Info").stdout == ""


def test_a_request_is_json_in_the_line_in_the_cell_or_in_a_variable(running):
    running.run("%sandbox run --bg --out job -- sleep 60\nrequest = {'id': job._raw.id}\nid = job._raw.id")
    pid = running.value("job._raw.pid")
    for cell in (
        "%sandbox call Process.Pids {request}",
        '%%sandbox call Process.Pids\n{"id": "ID"}'.replace("ID", running.value("id")),
        '%sandbox call Process.Pids {"id": "ID"}'.replace("ID", running.value("id")),
    ):
        assert json.loads(running.run(cell).stdout) == {"pids": [pid]}
    said = running.run("box = 'sandbox'\n%sandbox call Process.Pids {request} --name {box}")
    assert json.loads(said.stdout) == {"pids": [pid]}
    running.run("job.stop()")


def test_what_cannot_be_a_request_is_said_in_a_line(running):
    running.run("odd = {1}")
    error = running.run("%sandbox call System.Info {odd}").error
    assert "the request cannot be JSON: Object of type set" in error
    assert error.count("\n") == 0


def test_a_stream_ends_after_as_many_as_are_wanted(running):
    running.run(
        "import threading, time\nstop = threading.Event()\n"
        "sb = get_ipython().magics_manager.registry['SandboxMagics'].session.find(None)\n"
        "def busy():\n    while not stop.wait(0.1):\n        sb.run('true')\n"
        "thread = threading.Thread(target=busy); thread.start()"
    )
    said = running.run("%sandbox call --count 2 --out events Events.Stream")
    watched = running.run("%sandbox events --count 3")
    running.run("stop.set(); thread.join()")
    assert [json.loads(line)["topic"].startswith("/process/") for line in said.stdout.splitlines()] == [True, True]
    assert running.value("len(events)") == 2
    assert len(watched.stdout.splitlines()) == 3
    assert {line.split()[2] for line in watched.stdout.splitlines()} <= {"started,", "exited"}


def test_events_say_how_a_process_ended_and_end_with_their_time(running):
    running.run("%sandbox run --bg --out job -- sleep 60\nimport threading")
    said = running.run("threading.Timer(0.5, job.stop).start()\n%sandbox events --timeout 3")
    assert said.error == ""
    line = f" {running.value('job._raw.id')} ended by signal 9"
    assert [found for found in said.stdout.splitlines() if found.endswith(line)]


def test_the_last_lines_of_the_console_are_printed(running):
    running.run("%sandbox run -- sh -c 'for word in one two three; do echo $word > /dev/console; done'")
    assert running.run("%sandbox console --lines 2").stdout == "two\nthree\n"


def test_a_stream_both_ways_ends_with_its_requests(running):
    said = running.run("%sandbox call --timeout 5 --out answers SocketForward.Accept []")
    assert (said.stdout, running.value("answers")) == ("", [])


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%sandbox call System.Infoo", "did you mean System.Info"),
        ("%sandbox call Info", "%sandbox call lists them"),
        ("%sandbox call System.Info {", "no JSON"),
        ("%sandbox call System.Info []", "takes an object"),
        ("%sandbox call SocketForward.Accept {}", "takes a list"),
        ('%sandbox call Process.Pids {"pid": 1}', "these fields: id"),
        ('%sandbox call Process.Pids {"id": 1}', "id"),
        ('%sandbox call Process.Pids {"id": "nobody"}', "no process 'nobody'"),
        ("%%sandbox call System.Info {}\n{}", "one of the two"),
        ("%sandbox call --timeout 0.2 Events.Stream", "DeadlineExceeded"),
    ],
)
def test_what_is_wrong_with_a_call_is_one_line(running, cell, says):
    error = running.run(cell).error
    assert says in error
    assert error.count("\n") == 0
