"""Commands in a real machine: status, output, input, limits."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from sandbox_nb import FailedPrecondition, InvalidArgument, NotFound, ProcessFailed, ProcessTimedOut


def test_the_guest_is_another_kernel(sb):
    assert sb.run("uname -r").stdout.strip() == sb.info().kernel_version
    assert sb.info().kernel_version != os.uname().release


def test_text_is_for_the_shell_and_a_list_is_argv(sb):
    assert sb.run("echo $((1 + 2))").stdout == "3\n"
    assert sb.run(["echo", "$((1 + 2))", "a b"]).stdout == "$((1 + 2)) a b\n"


def test_output_and_error_are_kept_apart(sb):
    done = sb.run("echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_every_command_has_a_cgroup_that_nobody_had_before(sb):
    """What the one before has set there, counted or left behind is not the next one's."""
    used = [sb.run("cut -d: -f3 /proc/self/cgroup").stdout for _ in range(4)]
    assert all(one.startswith("/sandbox/") for one in used)
    assert len(set(used)) == 4


def test_an_emulated_guest_has_its_kernel_spare_the_processor(sb):
    knobs = "fault_around_bytes sched/wakeup_granularity_ns"
    shown = sb.run(f"mount -t debugfs none /mnt && cd /mnt && cat {knobs}; cd / && umount /mnt").stdout
    around, granularity = map(int, shown.split())
    emulated = sb.boot.accelerator.name == "tcg"
    assert around == (16384 if emulated else 65536)
    assert (granularity == 4_000_000) == emulated
    assert "debugfs" not in sb.run("cat /proc/mounts").stdout


def test_bytes_when_asked(sb):
    assert sb.run("printf '\\377\\000x'", text=False).stdout == b"\xff\x00x"


def test_invalid_utf8_is_replaced_in_text(sb):
    assert sb.run("printf 'a\\377b'").stdout == "a\ufffdb"


def test_a_command_that_is_not_there_says_so_with_127(sb):
    done = sb.run(["no-such-command", "x"])
    assert done.returncode == 127
    assert "no-such-command" in done.stderr


def test_a_file_that_cannot_be_run_says_so_with_126(sb):
    done = sb.run(["/etc/passwd"])
    assert done.returncode == 126
    assert "/etc/passwd" in done.stderr


def test_a_signal_is_a_negative_status(sb):
    assert sb.run("kill -TERM $$").returncode == -signal.SIGTERM


def test_check_raises_with_everything(sb):
    with pytest.raises(ProcessFailed) as caught:
        sb.run("echo out; echo err >&2; exit 7", check=True)
    assert (caught.value.returncode, caught.value.stdout, caught.value.stderr) == (7, "out\n", "err\n")


def test_environment_folder_and_user(sb):
    done = sb.run("echo $GREETING; pwd; id -u; id -g", env={"GREETING": "héllo"}, cwd="/tmp", user="nobody")
    greeting, folder, uid, gid = done.stdout.split()
    assert (greeting, folder) == ("héllo", "/tmp")
    assert uid != "0"
    assert gid != "0"


def test_the_default_environment_is_that_of_a_login(sb):
    lines = dict(line.split("=", 1) for line in sb.run("env").stdout.splitlines())
    assert "/usr/bin" in lines["PATH"].split(":")
    assert lines["HOME"] == "/root"
    assert not {"LINES", "COLUMNS"} & set(lines)


@pytest.mark.parametrize(
    ("keywords", "error", "named"),
    [
        ({"user": "nemo"}, NotFound, "nemo"),
        ({"cwd": "/no/such"}, NotFound, "/no/such"),
        ({"env": {"A=B": "c"}}, InvalidArgument, "A=B"),
    ],
)
def test_what_is_wrong_with_a_call_is_named(sb, keywords, error, named):
    with pytest.raises(error, match=named):
        sb.run("true", **keywords)


@pytest.mark.parametrize("command", [[], 7, ["a\0b"], b"true"])
def test_what_is_no_command_is_refused(sb, command):
    with pytest.raises(InvalidArgument):
        sb.run(command)


def test_input_reaches_the_command(sb):
    assert sb.run("tr a-z A-Z", input="quiet\n").stdout == "QUIET\n"
    assert sb.run("cat").stdout == ""


def test_a_command_that_ignores_its_input_is_no_error(sb):
    assert sb.run("true", input=b"x" * 1_000_000).returncode == 0


def test_long_output_arrives_whole(sb):
    expected = "".join(f"{n}\n" for n in range(1, 200_001))
    assert sb.run("seq 1 200000").stdout == expected


def test_64_mib_come_back_as_they_went(sb):
    data = os.urandom(64 << 20)
    done = sb.run("cat", input=data, text=False)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_output_comes_while_the_command_runs(sb):
    """The command waits for a file that is only written when its first line was seen."""
    seen = []

    def sink(number, data):
        if not seen:
            sb.write("/tmp/go", "")
        seen.append((number, data))

    done = sb.run(
        "echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; rm /tmp/go; echo second >&2", stream=sink
    )
    assert done.returncode == 0
    assert seen == [(1, b"first\n"), (2, b"second\n")]


def test_the_echo_is_where_print_goes(sb, capsys):
    sb.run("echo out; echo 'grün' >&2", stream=True)
    assert capsys.readouterr() == ("out\n", "grün\n")


def test_a_command_out_of_time_is_killed_with_all_it_started(sb):
    with pytest.raises(ProcessTimedOut) as caught:
        sb.run("echo before; (setsid sleep 987 &) ; sleep 987", timeout=0.5)
    assert caught.value.stdout == b"before\n"
    assert sb.run("pgrep -f 'sleep 987'").stdout == ""


def test_a_daemon_does_not_keep_the_pipes_it_was_not_given(sb):
    done = sb.run("sleep 986 >/dev/null 2>&1 & echo started")
    assert done.stdout == "started\n"
    sb.run("pkill -f 'sleep 986'")


def test_many_commands_at_once(sb):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(lambda n: sb.run(f"echo {n}; sleep 0.1; exit {n}"), range(32)))
    assert [(d.returncode, d.stdout) for d in done] == [(n, f"{n}\n") for n in range(32)]


def test_an_interrupt_ends_the_command_and_not_the_machine():
    script = """
        import os, signal, threading
        from sandbox_nb import Sandbox
        with Sandbox.started() as sb:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                sb.run("echo running; sleep 985", stream=True)
            except KeyboardInterrupt:
                print("interrupted", repr(sb.run("pgrep -f 'sleep 985'").stdout))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "running\ninterrupted ''\n", done.stderr


def test_a_command_before_the_start_is_refused(own):
    with pytest.raises(FailedPrecondition, match="new"):
        own.run("true")


def test_a_running_event_loop_is_no_obstacle(sb):
    import asyncio

    async def cell():
        return sb.run("echo from a cell").stdout

    assert asyncio.run(cell()) == "from a cell\n"


def test_clock_is_the_hosts(sb):
    before = time.time()
    guest = float(sb.run("date +%s").stdout)
    assert before - 1.5 <= guest <= time.time() + 1.5
