"""Sources: a program on this machine, and a socket."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import time

import pytest

from sandbox_nb.notebook import terminal_source
from sandbox_nb.notebook.terminal_source import LocalPty, SocketSource, how_it_ended


def read_until(source, wanted, timeout=20):
    """Read until ``wanted`` is there, or the end."""
    got = b""
    deadline = time.monotonic() + timeout
    while wanted not in got:
        assert time.monotonic() < deadline, got
        data = source.read()
        got += data
        if not data:
            break
    return got


@pytest.fixture
def start():
    """Makes sources and closes them."""
    made = []

    def make(*argv, rows=24, cols=80, **keywords):
        source = LocalPty(argv, **keywords)
        made.append(source)
        source.open(rows, cols)
        return source

    yield make
    for source in made:
        source.close()
        source.ending()


def test_the_program_has_the_size_from_its_first_moment(start):
    assert read_until(start("stty", "size", rows=31, cols=97), b"\n") == b"31 97\r\n"


def test_the_terminal_is_the_one_that_controls_it(start):
    source = start("sh", "-c", "tty; echo fine > /dev/tty; ps -o stat= -p $$; sleep 60")
    shown = read_until(source, b"+")
    assert b"/dev/pts/" in shown
    assert b"fine" in shown
    source.write(b"\x03")
    assert source.read() in (b"^C", b"\r\n^C")
    read_until(source, b"never")
    assert source.ending() == "ended by SIGINT"


def test_a_resize_is_a_signal_to_the_program(start):
    source = start("sh", "-c", "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done")
    read_until(source, b"ready")
    source.resize(10, 20)
    assert b"10 20" in read_until(source, b"10 20")


def test_what_is_written_arrives_whole_however_large(start):
    size = 300_000
    source = start("sh", "-c", f"stty raw -echo; echo ready; head -c {size} | sha256sum")
    read_until(source, b"ready")
    data = os.urandom(size)
    source.write(data)
    digest = hashlib.sha256(data).hexdigest().encode()
    assert digest in read_until(source, digest)


@pytest.mark.parametrize(
    ("script", "ending"),
    [("exit 0", "exited with status 0"), ("exit 7", "exited with status 7"), ("kill -9 $$", "ended by SIGKILL")],
)
def test_the_end_says_how_it_came(start, script, ending):
    source = start("sh", "-c", script)
    assert read_until(source, b"never") == b""
    assert source.ending() == ending


def test_lines_and_columns_are_not_in_the_environment(start, monkeypatch):
    monkeypatch.setenv("LINES", "99")
    monkeypatch.setenv("COLUMNS", "99")
    source = start("sh", "-c", 'echo "<$LINES$COLUMNS$TERM$X>"', env={"X": "!"})
    assert b"<xterm-256color!>" in read_until(source, b">")


def test_close_wakes_a_read_and_a_write_that_wait_and_ends_the_program(start):
    source = start("sh", "-c", "stty raw; echo pid $$; exec sleep 1000")
    pid = int(read_until(source, b"\n").split()[1])
    threads = [
        threading.Thread(target=lambda: read_until(source, b"never")),
        threading.Thread(target=source.write, args=(b"x" * 1_000_000,)),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    source.close()
    source.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert source.ending() == "ended by SIGHUP"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_write_that_nobody_takes_any_more_returns(start):
    source = start("true")
    assert source.ending() == "exited with status 0"
    source.write(b"x" * 1_000_000)
    assert read_until(source, b"never") is not None


def test_a_program_that_ignores_the_hang_up_is_waited_for_whenever_it_ends(start, monkeypatch):
    monkeypatch.setattr(terminal_source, "ENDING", 0.1)
    source = start("sh", "-c", "trap '' HUP; echo $$; sleep 1")
    pid = int(read_until(source, b"\n"))
    source.close()
    assert source.ending() == "closed"
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_child_that_holds_the_terminal_open_does_not_hold_up_the_close(start):
    source = start("sh", "-c", "(trap '' HUP; sleep 5) & echo started; exit 0")
    read_until(source, b"started")
    source.close()
    assert source.read() == b""


def test_a_program_that_is_not_there_is_refused_by_name():
    source = LocalPty(["no-such-program"])
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        source.open(24, 80)
    source.close()
    assert source.read() == b""


def test_the_interrupt_key_works_where_the_parent_ignores_the_signal(start):
    # As ipykernel does between cells.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        source = start("sh", "-c", "echo ready; sleep 60")
    finally:
        signal.signal(signal.SIGINT, before)
    read_until(source, b"ready")
    source.write(b"\x03")
    read_until(source, b"never")
    assert source.ending() == "ended by SIGINT"


def test_nothing_is_left_open():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        source = LocalPty(["true"])
        source.open(24, 80)
        read_until(source, b"never")
        source.ending()
        source.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def pair():
    """A SocketSource and the far end of its socket, and the sizes it was told."""
    near, far = socket.socketpair()
    sizes = []

    def connect(rows, cols):
        sizes.append((rows, cols))
        return near

    return SocketSource(connect, lambda rows, cols: sizes.append((rows, cols)), lambda: "gone"), far, sizes


def test_a_socket_carries_bytes_both_ways_and_sizes_apart():
    source, far, sizes = pair()
    source.open(24, 80)
    source.write(b"in")
    assert far.recv(10) == b"in"
    far.sendall(b"out")
    assert source.read() == b"out"
    source.resize(30, 90)
    assert sizes == [(24, 80), (30, 90)]
    far.close()
    assert source.read() == b""
    assert source.ending() == "gone"


def test_a_socket_that_is_reset_has_ended_and_takes_what_is_written_without_a_word():
    source, far, _ = pair()
    source.open(24, 80)
    source.write(b"never read: the kernel answers with a reset")
    far.close()
    source.write(b"x")
    assert source.read() == b""
    source.write(b"x")
    assert source.ending() == "gone"


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exited with status 0"), (-9, "ended by SIGKILL"), (-40, "ended by signal 40")],
)
def test_a_status_is_said_in_words(status, words):
    assert how_it_ended(status) == words


def test_closing_a_socket_wakes_its_reader():
    source, far, _ = pair()
    source.open(24, 80)
    reader = threading.Thread(target=source.read)
    reader.start()
    time.sleep(0.1)
    source.close()
    reader.join(10)
    assert not reader.is_alive()
    far.close()


def test_a_socket_closed_before_it_was_opened_ends_at_once():
    source, far, _ = pair()
    source.close()
    source.open(24, 80)
    assert source.read() == b""
    far.close()
