"""The guard: what it starts lives as long as owner and guard do, and no longer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox_nb import binaries
from sandbox_nb.vm import cgroup


@contextlib.contextmanager
def owner_process():
    """A process to be the owner; yields its pidfd."""
    owner = subprocess.Popen(["sleep", "60"])
    fd = os.pidfd_open(owner.pid)
    try:
        yield owner, fd
    finally:
        os.close(fd)
        owner.kill()
        owner.wait()


def guard(fd: int, *command: str, flags: tuple[str, ...] = (), **keywords) -> subprocess.Popen[bytes]:
    argv = [binaries.guard(), str(fd), *flags, "--", *command]
    return subprocess.Popen(argv, pass_fds=(fd, *keywords.pop("pass_fds", ())), stdout=subprocess.PIPE, **keywords)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition) -> None:
    """The test's own time-out ends the wait."""
    while not condition():
        time.sleep(0.01)


def first_number(process) -> int:
    return int(process.stdout.readline())


def finish(process) -> int:
    process.stdout.close()
    return process.wait(20)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", 128 + signal.SIGTERM),
        ("kill -KILL $$", 128 + signal.SIGKILL),
    ],
)
def test_it_ends_as_its_command_does(command, status):
    with owner_process() as (_, fd):
        assert finish(guard(fd, "sh", "-c", command)) == status


def test_a_command_that_cannot_be_run_is_said(tmp_path):
    (tmp_path / "file").touch()
    with owner_process() as (_, fd):
        wrong = (("no-such-command", 127, b"No such file"), (str(tmp_path / "file"), 126, b"denied"))
        for command, status, word in wrong:
            process = guard(fd, command, stderr=subprocess.PIPE)
            _, errors = process.communicate()
            assert process.returncode == status
            assert command.encode() in errors
            assert word in errors


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["x", "--", "true"],
        ["3"],
        ["3", "--"],
        ["3", "true"],
        ["3", "--uid", "1", "--", "true"],
        ["3", "--uid", "--", "true"],
        ["3", "--uid", "-1", "--gid", "1", "--", "true"],
        ["3", "--wrong", "1", "--", "true"],
        ["999", "--", "true"],
    ],
)
def test_a_wrong_command_line_runs_nothing(argv):
    done = subprocess.run([binaries.guard(), *argv], capture_output=True)
    assert done.returncode == 125
    assert done.stderr.startswith((b"usage: guard", b"guard: OWNER_PIDFD"))


def test_the_whole_group_goes_when_the_owner_is_killed():
    with owner_process() as (owner, fd):
        process = guard(fd, "sh", "-c", "trap '' TERM HUP; sleep 60 & echo $!; echo $$; wait")
        pids = [first_number(process), first_number(process)]
        owner.kill()
        owner.wait()
        assert finish(process) == 128 + signal.SIGKILL
        wait_for(lambda: not any(is_alive(pid) for pid in pids))


def test_an_owner_that_is_gone_already_is_noticed():
    owner = subprocess.Popen(["true"])
    fd = os.pidfd_open(owner.pid)
    owner.wait()
    try:
        assert finish(guard(fd, "sleep", "60")) == 128 + signal.SIGKILL
    finally:
        os.close(fd)


def test_the_command_goes_when_the_guard_is_killed():
    with owner_process() as (_, fd):
        process = guard(fd, "sh", "-c", "echo $$; exec sleep 60")
        pid = first_number(process)
        process.kill()
        finish(process)
        wait_for(lambda: not is_alive(pid))


def test_what_the_command_leaves_behind_goes_with_it():
    with owner_process() as (_, fd):
        process = guard(fd, "sh", "-c", "sleep 60 >/dev/null & echo $!")
        pid = first_number(process)
        assert finish(process) == 0
        wait_for(lambda: not is_alive(pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(number):
    with owner_process() as (_, fd):
        script = f"trap 'exit 9' {number.name[3:]}; echo 1; while :; do sleep 0.01; done"
        process = guard(fd, "sh", "-c", script)
        first_number(process)
        process.send_signal(number)
        assert finish(process) == 9


def test_the_command_gets_all_fds_but_the_pidfd_and_the_guard_keeps_none():
    reader, writer = os.pipe()
    with owner_process() as (_, fd):
        process = guard(
            fd, "sh", "-c", "ls /proc/self/fd; echo end; cat", pass_fds=(writer,), stdin=subprocess.PIPE
        )
        lines = []
        while (line := process.stdout.readline()) != b"end\n":
            lines.append(int(line))
        assert writer in lines
        assert fd not in lines
        assert len(os.listdir(f"/proc/{process.pid}/fd")) == 3
        os.close(writer)
        process.stdin.close()
        assert finish(process) == 0
        assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_terminals_interrupt_key_does_not_reach_the_command():
    """The guard and its command are in sessions of their own."""
    with owner_process() as (_, fd):
        process = guard(fd, "sh", "-c", "echo $$; exec sleep 60")
        pid = first_number(process)
        sessions = {os.getsid(0), os.getsid(process.pid), os.getsid(pid)}
        assert len(sessions) == 3
        process.terminate()
        assert finish(process) == 128 + signal.SIGTERM


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_privileges_are_dropped_and_the_command_still_goes_with_the_guard():
    script = "grep -E '^(Uid|Gid|Groups)' /proc/self/status | xargs; echo $$; exec sleep 60"
    with owner_process() as (_, fd):
        process = guard(fd, "sh", "-c", script, flags=("--uid", "65534", "--gid", "65533"))
        identity = process.stdout.readline().split()
        assert identity == b"Uid: 65534 65534 65534 65534 Gid: 65533 65533 65533 65533 Groups:".split()
        pid = first_number(process)
        process.kill()
        finish(process)
        wait_for(lambda: not is_alive(pid))


def test_an_owner_killed_at_any_moment_leaves_nothing():
    """The owner dies at once after it has started the guard."""
    program = (
        "import os, subprocess, sys\n"
        "fd = os.pidfd_open(os.getpid())\n"
        "p = subprocess.Popen([sys.argv[1], str(fd), '--', 'sleep', '60'], pass_fds=(fd,))\n"
        "print(p.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    for _ in range(20):
        done = subprocess.run([sys.executable, "-c", program, binaries.guard()], stdout=subprocess.PIPE)
        pid = int(done.stdout)
        wait_for(lambda pid=pid: not is_alive(pid))
    sleeping = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_our_sleep(entry)]
    assert sleeping == []


def _is_our_sleep(entry: Path) -> bool:
    with contextlib.suppress(OSError):
        stat = (entry / "stat").read_text().rpartition(")")[2].split()
        return (
            (entry / "cmdline").read_bytes() == b"sleep\x0060\0" and stat[1] == "1" and is_alive(int(entry.name))
        )
    return False


def test_a_group_that_is_not_there_is_said(tmp_path):
    with owner_process() as (_, fd):
        for flag in ("--cgroup", "--tasks"):
            process = guard(fd, "true", flags=(flag, str(tmp_path / "gone")), stderr=subprocess.PIPE)
            _, errors = process.communicate()
            assert process.returncode == 126
            assert str(tmp_path / "gone").encode() in errors


@pytest.mark.parametrize("flags", ["--data much", "--processor 4096", "--processor -1", "--tasks"])
def test_what_is_no_cap_is_refused(flags):
    with owner_process() as (_, fd):
        process = guard(fd, "true", flags=tuple(flags.split()), stderr=subprocess.PIPE)
        _, errors = process.communicate()
        assert (process.returncode, errors[:6]) == (125, b"usage:")


def test_a_command_is_in_its_group_from_the_start_and_the_guard_is_not(tmp_path):
    where = cgroup.place()
    if where is None:
        pytest.skip("no control group can be made here")
    group = cgroup.make(where, f"{os.getpid()}-0-test", cpu=True)
    try:
        with owner_process() as (owner, fd):
            process = guard(fd, "sh", "-c", "echo $$; exec sleep 60", flags=tuple(group.guard_flags))
            inside = first_number(process)
            for folder in group.unique:
                assert (folder / "cgroup.procs").read_text().split() == [str(inside)]
            owner.kill()
            finish(process)
    finally:
        assert group.remove()
