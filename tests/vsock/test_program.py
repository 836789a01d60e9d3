"""The device as a process: how it is started, what it leaves, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sandbox_nb.vsock
from sandbox_nb.vsock import program
from vsock.model import FrontEnd, Guest

PROGRAM = Path(sandbox_nb.vsock.__file__).with_name("__main__.py")
BY_PATH = [sys.executable, "-I", "-S", str(PROGRAM)]
AS_MODULE = [sys.executable, "-m", "sandbox_nb.vsock"]

either_way = pytest.mark.parametrize("command", [BY_PATH, AS_MODULE], ids=["by path", "as module"])


@pytest.fixture
def start():
    """Starts device processes; ends those still running."""
    started = []

    def run(*arguments, command=BY_PATH, **options):
        options.setdefault("stderr", subprocess.PIPE)
        process = subprocess.Popen([*command, *map(str, arguments)], text=True, **options)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(condition):
    while not condition():
        time.sleep(0.005)


def listener(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


@either_way
def test_it_starts_either_way_and_takes_its_sockets_along(start, folder, command):
    process = start("--socket", folder / "vhost", "--uds", folder / "v", command=command)
    wait_for((folder / "v").exists)
    process.terminate()
    assert process.wait(10) == 0
    assert list(folder.iterdir()) == []
    assert process.stderr.read() == ""


@either_way
def test_inherited_sockets_are_used_and_their_files_left_to_the_owner(start, folder, command):
    with listener(folder / "vhost") as vhost, listener(folder / "v") as hybrid:
        fds = (vhost.fileno(), hybrid.fileno())
        arguments = ("--socket-fd", fds[0], "--uds-fd", fds[1], "--uds", folder / "v")
        process = start(*arguments, command=command, pass_fds=fds)
    guest = Guest()
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as host:
        sock.connect(str(folder / "vhost"))
        front = FrontEnd(sock, guest)
        front.start()
        assert front.ask(1)
        host.connect(str(folder / "v"))
        host.sendall(b"CONNECT 5000\n")
        wait_for(lambda: any(header.dst_port == 5000 for header, _ in guest.receive()))
    guest.close()
    process.terminate()
    assert process.wait(10) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["v", "vhost"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told(start, folder, number):
    process = start("--socket", folder / "vhost", "--uds", folder / "v")
    wait_for((folder / "v").exists)
    process.send_signal(number)
    assert process.wait(10) == 0


def test_it_ends_with_its_controller_and_answers_it_until_then(start, folder):
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            fds = [theirs.fileno()]
            process = start(
                "--socket", folder / "vhost", "--uds", folder / "v", "--control-fd", fds[0], pass_fds=fds
            )
        ours.sendall(b'{"id": 1, "command": "statistics"}\n')
        answer = json.loads(ours.makefile().readline())
        assert answer["result"]["running"] is False
    assert process.wait(10) == 0
    assert list(folder.iterdir()) == []


def test_a_trace_may_begin_at_once(start, folder):
    process = start("--socket", folder / "vhost", "--uds", folder / "v", "--trace", folder / "trace")
    wait_for((folder / "trace").exists)
    process.terminate()
    process.wait(10)
    assert (folder / "trace").read_bytes()[:4] == b"\n\r\r\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--uds", "v"], "one of --socket and --socket-fd"),
        (["--uds", "v", "--socket", "s", "--socket-fd", "3"], "one of --socket and --socket-fd"),
        (["--uds", "v", "--socket", "s", "--cid", "2"], "--cid 2: a guest's context id is 3 to"),
        (["--uds", "v", "--socket-fd", "8", "--uds-fd", "9", "--uid", "5"], "--uid and --gid go together"),
        (["--uds", "v", "--socket", "s", "--uid", "5", "--gid", "5"], "--uid needs --socket-fd and --uds-fd"),
        (["--uds", "v", "--socket", "s", "--connections", "0"], "--connections 0"),
        (["--uds", "x" * 97, "--socket", "s"], "must fit into 107 bytes"),
        (["--socket", "s"], "--uds is needed"),
        (["--sock", "s"], "--sock: there is no such option"),
        (["socket", "s"], "socket: there is no such option"),
        (["--uds", "v", "--socket"], "--socket: a value is needed"),
        (["--uds", "v", "--socket-fd", "-1"], "--socket-fd -1: a number is needed"),
    ],
)
def test_arguments_that_cannot_work_are_refused_by_name(folder, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(folder)
    assert program.main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.endswith("; --help lists the options\n")
    assert list(folder.iterdir()) == []


def test_help_lists_every_option(capsys):
    assert program.main(["--help"]) == 0
    said = capsys.readouterr().out
    for option in program._NUMBERS | program._WORDS:
        assert f"  --{option} " in said


def test_too_few_open_files_are_said_to_be_and_nothing_is_left(start, folder):
    few = ["sh", "-c", 'ulimit -n 39; exec "$@"', "sh", *AS_MODULE]
    process = start("--socket", folder / "vhost", "--uds", folder / "v", command=few)
    assert process.wait(10) == 1
    assert process.stderr.read() == "vsock: 39 open files are allowed, 40 are needed; see ulimit -n\n"
    assert list(folder.iterdir()) == []


@either_way
def test_a_path_in_use_is_said_to_be(start, folder, command):
    (folder / "v").touch()
    process = start("--socket", folder / "vhost", "--uds", folder / "v", command=command)
    assert process.wait(10) == 1
    assert f"{folder}/v" in (said := process.stderr.read())
    assert "in use" in said
    assert sorted(path.name for path in folder.iterdir()) == ["v"]


def test_files_left_by_a_device_that_was_killed_are_replaced(start, folder):
    """Elsewhere: address in use."""
    for _ in range(2):
        process = start("--socket", folder / "vhost", "--uds", folder / "v")
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(folder / "v"))
                break
        process.kill()
        process.wait()
    assert (folder / "v").exists()
    assert process.stderr.read() == ""


def test_a_device_that_lives_keeps_its_sockets(start, folder):
    start("--socket", folder / "vhost", "--uds", folder / "v")
    wait_for((folder / "v").exists)
    second = start("--socket", folder / "vhost", "--uds", folder / "v")
    assert second.wait(10) == 1
    assert "in use" in second.stderr.read()
    assert sorted(path.name for path in folder.iterdir()) == ["v", "vhost"]


def test_the_device_process_needs_no_asyncio_and_nothing_of_ours(start):
    script = f"""
import runpy, sys
try:
    runpy.run_path({str(PROGRAM)!r}, run_name="__main__")
except SystemExit:
    pass
print([name for name in ("asyncio", "json", "threading", "logging", "sandbox_nb") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_one_limit_on_open_files_holds_more_connections_than_asked_for(start, folder):
    process = start("--socket", folder / "vhost", "--uds", folder / "v", "--connections", "5000")
    wait_for((folder / "v").exists)
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    soft, hard = line.split()[3:5]
    assert soft == hard
    assert os.path.exists(f"/proc/{process.pid}")
