"""Values of the wrong kind, in every verb that takes one: refused by name, and nothing happens."""

from __future__ import annotations

import time
from functools import partial
from subprocess import DEVNULL, STDOUT

import pytest

from sandbox_nb import InvalidArgument, Sandbox, State


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        ({"cwd": 5}, "cwd=5"),
        ({"cwd": "/tmp\0x"}, "NUL"),
        ({"cwd": "/\ud800"}, "UTF-8"),
        ({"env": [1]}, r"env=\[1\]"),
        ({"env": {"A": 1}}, "'A'=1"),
        ({"env": {1: "a"}}, "1='a'"),
        ({"env": {"A": "\ud800"}}, "UTF-8"),
        ({"env": {"A": "b\0"}}, "NUL"),
        ({"user": 0}, "user=0"),
        ({"user": "ro\0ot"}, "NUL"),
        ({"user": "\udcff"}, "UTF-8"),
        ({"input": 5}, "input=5"),
        ({"input": "\ud800"}, "input cannot be UTF-8"),
        ({"timeout": "5"}, "timeout='5'"),
        ({"timeout": 10**400}, "timeout=1000"),
        ({"stderr": "x"}, "stderr='x'"),
    ],
)
def test_of_run(sb, keywords, named):
    with pytest.raises(InvalidArgument, match=named):
        sb.run("true", **keywords)


@pytest.mark.parametrize("timeout", ["5", True, float("nan")])
def test_of_a_timeout(sb, timeout):
    fresh = Sandbox()
    with sb.popen("sleep 60") as process:
        for verb in (
            fresh.start,
            sb.stop,
            partial(sb.run, "true"),
            partial(sb.start_stream, "s"),
            process.wait,
        ):
            with pytest.raises(InvalidArgument, match="timeout="):
                verb(timeout=timeout)
        assert process.returncode is None
    assert (fresh.state, sb.state) == (State.NEW, State.RUNNING)


@pytest.mark.parametrize("command", [5, [5], "a\0b", "\ud800", ["a", "\0"], [], b"true", None])
def test_of_a_command(sb, command):
    with pytest.raises(InvalidArgument):
        sb.run(command)


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        ({"tty": (1, 2, 3)}, "tty="),
        ({"tty": 24}, "tty=24"),
        ({"tty": (24, "80")}, "columns='80'"),
        ({"tty": (70_000, 80)}, "rows=70000"),
        ({"stdout": 7}, "stdout=7"),
        ({"stdout": STDOUT}, "stdout=-2"),
    ],
)
def test_of_popen(sb, keywords, named):
    with pytest.raises(InvalidArgument, match=named):
        sb.popen("true", **keywords)


def test_of_a_process(sb):
    with sb.popen("cat", tty=(24, 80)) as process:
        for wrong in ("x", 0, 65, None):
            with pytest.raises(InvalidArgument, match="signal"):
                process.send_signal(wrong)
        with pytest.raises(InvalidArgument, match="rows=-1"):
            process.resize(-1, 80)


@pytest.mark.parametrize("path", [5, None, "/a\0b", "/\ud800"])
def test_of_a_path(sb, path):
    with pytest.raises(InvalidArgument, match="path"):
        sb.read(path)
    with pytest.raises(InvalidArgument, match="path"):
        sb.write(path, "")


def test_of_no_path_at_all(sb, tmp_path):
    for verb in (sb.read, sb.stat, sb.listdir, sb.mkdir, sb.remove):
        with pytest.raises(InvalidArgument, match="path='': a path is needed"):
            verb("")
    for verb in (sb.copy_to, sb.copy_from):
        with pytest.raises(InvalidArgument, match="source='': a path is needed"):
            verb("", tmp_path)
        with pytest.raises(InvalidArgument, match="target='': a path is needed"):
            verb("/etc/passwd", "")


@pytest.mark.parametrize("mode", [-1, "755", 0o10000, True, None])
def test_of_a_mode(sb, mode):
    for verb in (partial(sb.write, data=""), sb.mkdir):
        with pytest.raises(InvalidArgument, match=f"mode={mode!r}: permission bits"):
            verb("/tmp/never", mode=mode)
    assert sb.run("test -e /tmp/never").returncode == 1


def test_of_what_is_true_or_false(sb):
    for verb, name in (
        (sb.remove, "recursive"),
        (sb.mkdir, "parents"),
        (sb.mkdir, "exist_ok"),
        (sb.stat, "follow_symlinks"),
    ):
        with pytest.raises(InvalidArgument, match=f"{name}='x': True or False"):
            verb("/tmp/never", **{name: "x"})


@pytest.mark.parametrize("path", ["/", "//", b"/", "/tmp/..", "/tmp/./"])
def test_of_what_is_never_removed(sb, path):
    with pytest.raises(InvalidArgument, match="neither the root folder nor what ends with"):
        sb.remove(path, recursive=True)


@pytest.mark.parametrize("identity", [None, 5, "", "\ud800", "a\n"])
def test_of_a_stream(sb, identity):
    with pytest.raises(InvalidArgument, match="stream id .*: 1 to 128 printable bytes"):
        sb.start_stream(identity)


def test_of_who_is_told(sb, tmp_path):
    """Refused before anything runs, also where there would have been nothing to tell."""
    with pytest.raises(InvalidArgument, match="stream='x': True, or a function"):
        sb.runner.wait(sb.asynchronous.run("touch /tmp/never", stream="x"))
    with pytest.raises(InvalidArgument, match="progress=5: a function"):
        sb.copy_to("/etc/passwd", "/tmp/never", progress=5)
    with pytest.raises(InvalidArgument, match="progress=5: a function"):
        sb.copy_from("/etc/passwd", tmp_path / "never", progress=5)
    assert sb.run("test -e /tmp/never").returncode == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidArgument, match="progress=5: a function"):
        Sandbox().start(progress=5)


@pytest.mark.parametrize("data", [5, None, ["a"], "\ud800"])
def test_of_data(sb, data):
    with pytest.raises(InvalidArgument, match="data"):
        sb.write("/tmp/never", data)
    assert sb.run("test -e /tmp/never").returncode == 1


def test_errors_may_go_where_the_output_goes(sb):
    done = sb.run("echo out; echo err >&2; echo out", stderr=STDOUT)
    assert (done.stdout, done.stderr) == ("out\nerr\nout\n", None)
    assert sb.run("echo out; echo err >&2", stderr=DEVNULL).stdout == "out\n"
    with sb.popen("echo out; echo err >&2", stderr=STDOUT) as process:
        assert process.stderr is None
        assert process.stdout.read() == b"out\nerr\n"


def test_output_that_is_not_captured_goes_to_the_taker_alone(sb):
    seen = []
    done = sb.run("seq 3", stream=lambda number, data: seen.append((number, data)), capture_output=False)
    assert (done.stdout, done.stderr) == (None, None)
    assert b"".join(data for _, data in seen) == b"1\n2\n3\n"


def test_a_slow_taker_slows_the_command(sb):
    ended = []

    def take(number, data):
        if not ended:
            time.sleep(0.5)
            ended.append(sb.run("test -e /tmp/ended").returncode == 0)

    sb.run("head -c 67108864 /dev/zero && touch /tmp/ended", stream=take, capture_output=False)
    assert ended == [False]
    assert sb.run("rm /tmp/ended").returncode == 0
