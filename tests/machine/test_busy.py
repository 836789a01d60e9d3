"""A guest whose programs leave nothing of its processor: it still does what it is told."""

from __future__ import annotations

import pytest

from sandbox_nb import ProcessTimedOut, Sandbox

NICE = "awk '{print $19}'"  # proc(5): field 19 of stat; no command here has a space in its name


def test_the_agent_goes_before_the_programs_it_starts(sb):
    assert sb.run(f"{NICE} /proc/1/stat; {NICE} /proc/self/stat", check=True).stdout == "-20\n0\n"


def test_a_terminal_and_a_users_program_have_the_usual_priority_too(sb):
    with sb.popen(f"{NICE} /proc/self/stat", tty=(24, 80)) as process:
        assert process.stdout.read() == b"0\r\n"
    assert sb.run(f"{NICE} /proc/self/stat", user="user", check=True).stdout == "0\n"


def test_a_fork_bomb_is_ended_and_the_machine_goes_on():
    with Sandbox.started() as sandbox:
        with pytest.raises(ProcessTimedOut):
            sandbox.run("bomb() { bomb | bomb & }; bomb; sleep 1000", timeout=2)
        assert sandbox.run("echo still here", timeout=60).stdout == "still here\n"
