"""``sandbox-nb`` as people type it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from support import alive, descendants


def sandbox_nb(*words, input=b"", **keywords):
    command = [sys.executable, "-m", "sandbox_nb", *words]
    return subprocess.run(command, input=input, capture_output=True, check=False, **keywords)


def test_run_prints_what_the_command_prints():
    done = sandbox_nb("run", "--", "uname", "-a")
    assert done.returncode == 0
    assert done.stdout.startswith(b"Linux sandbox ")
    assert done.stderr == b""


def test_run_passes_the_exit_status_on():
    assert sandbox_nb("run", "--", "sh", "-c", "exit 7").returncode == 7
    assert sandbox_nb("run", "--", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM


def test_run_keeps_output_and_error_apart():
    done = sandbox_nb("run", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_long_output_arrives_whole():
    assert sandbox_nb("run", "--", "seq", "1", "200000").stdout == b"".join(b"%d\n" % n for n in range(1, 200_001))


def test_64_mib_of_input_come_back():
    data = os.urandom(64 << 20)
    done = sandbox_nb("run", "--", "cat", input=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_options_of_machine_and_command():
    done = sandbox_nb(
        *("run", "--cpus", "2", "--memory", "300", "--env", "A=b", "--cwd", "/tmp", "--user", "nobody", "--"),
        *("sh", "-c", "nproc; echo $A; pwd; id -un"),
    )
    assert done.stdout.split() == [b"2", b"b", b"/tmp", b"nobody"], done.stderr


def test_devices_and_options_from_a_file(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.txt").write_text("of the host")
    (tmp_path / "machine.toml").write_text("cpu = 2\nmemory = 300\n")
    words = ("run", "--config", "machine.toml", "--share", "src=src,ro,target=/src", "--memory", "310")
    done = sandbox_nb(
        *words, "sh", "-c", "cat /src/a.txt; nproc; touch /src/b 2>/dev/null || echo ro", cwd=tmp_path
    )
    assert done.stdout == b"of the host2\nro\n"


def test_a_port_is_forwarded_with_no_network_card():
    serve = "printf 'hello' | nc -l -p 80"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sandbox_nb", "run", "--forward", f"{port}:80", "sh", "-c", serve]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        deadline, said = time.monotonic() + 30, b""
        while not said and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as sock:
                said = sock.recv(9)
            time.sleep(0.05)
        assert said == b"hello"
        assert process.wait(timeout=30) == 0


def test_a_command_out_of_time_is_killed():
    done = sandbox_nb("run", "--timeout", "0.5", "--", "sleep", "60")
    assert done.returncode == 124
    assert b"sleep 60" in done.stderr


def test_a_reader_that_leaves_ends_the_command():
    with subprocess.Popen(
        [sys.executable, "-m", "sandbox_nb", "run", "--", "yes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(timeout=30) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("redirected", "status", "says"),
    [("<&-", 0, b""), (">&-", 0, b""), ("2>&-", 0, b""), (">/dev/full", 125, b"No space left")],
)
def test_closed_and_full_standard_streams(redirected, status, says):
    words = f"exec {sys.executable} -m sandbox_nb run -- sh -c 'cat; seq 1 20000' {redirected}"
    done = subprocess.run(
        ["sh", "-c", words], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30
    )
    assert done.returncode == status
    assert says in done.stderr
    assert b"Traceback" not in done.stderr


def test_control_c_ends_everything():
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox_nb", "run", "--", "sh", "-c", "echo up; sleep 60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 128 + signal.SIGINT
    assert b"Traceback" not in process.stderr.read()
    process.stdout.close()
    process.stderr.close()


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("run",), 2, "CMD"),
        (("ran",), 2, "run"),
        (("run", "--memroy", "300", "--", "true"), 2, "--memory"),
        (("run", "--cpu", "two", "--", "true"), 2, "two"),
        (("run", "--cpu", "2", "--", "true"), 125, "cpu=2 without memory"),
        (("run", "--cpu", "1", "--memory", "16", "--", "true"), 125, "memory=16"),
        (("run", "--kernel", "/no/kernel", "--", "true"), 125, "/no/kernel"),
        (("run", "--image", "gentoo", "--", "true"), 125, "gentoo"),
        (("run", "--env", "A", "--", "true"), 2, "NAME=VALUE"),
        (("run", "--accel", "hvf", "--", "true"), 2, "hvf"),
        (("run", "--share", "src", "--", "true"), 2, "TAG=PATH"),
        (("run", "--disk", "a=/no/such.img", "--", "true"), 125, "/no/such.img"),
        (("run", "--config", "/no/such.toml", "--", "true"), 125, "/no/such.toml"),
        (("run", "--forward", "80", "--", "true"), 2, "HOST:GUEST"),
        (("bench", "speed"), 125, "speed"),
    ],
)
def test_what_is_typed_wrong_is_one_line_and_a_status(words, status, says):
    done = sandbox_nb(*words)
    assert done.returncode == status
    assert says in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


def test_a_command_that_is_not_there_is_127():
    done = sandbox_nb("run", "--", "no-such-command")
    assert done.returncode == 127
    assert b"no-such-command" in done.stderr


def test_doctor_finds_everything_there():
    done = sandbox_nb("doctor", "--json")
    findings = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert findings["QEMU"]["status"] == "ok"
    assert findings["accelerator"]["detail"]
    assert "base" in findings["guest image"]["detail"]
    assert b"QEMU" in sandbox_nb("doctor").stdout


def test_doctor_says_what_is_missing_and_how_to_get_it(tmp_path):
    done = sandbox_nb("doctor", env={**os.environ, "PATH": str(tmp_path)})
    assert done.returncode == 1
    assert b"apt-get install qemu-system-x86" in done.stdout


def test_images_are_listed():
    assert b"base" in sandbox_nb("image", "list").stdout


def test_help_names_the_commands():
    out = sandbox_nb("--help").stdout
    for command in (b"run", b"doctor", b"image", b"bench"):
        assert command in out
    assert b"--memory" in sandbox_nb("run", "--help").stdout


def test_kill_9_leaves_no_machine():
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox_nb", "run", "--", "sh", "-c", "echo up; sleep 60"], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"up\n"
    below = descendants(process.pid)
    assert len(below) >= 4  # QEMU and the vsock device, each below its guard
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and alive(below):
        time.sleep(0.02)
    assert not alive(below)
