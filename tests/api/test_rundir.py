"""Run folders: private, short, and swept when their owner is gone."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_nb import rundir
from sandbox_nb.errors import FailedPrecondition


@pytest.fixture
def runtime(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("r")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def test_a_run_folder_is_private_and_below_the_runtime_folder(runtime):
    folder = rundir.create()
    assert folder.parent == runtime / "sandbox_nb"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    rundir.remove(folder)
    rundir.remove(folder)
    assert not folder.exists()


def test_what_a_dead_process_left_is_swept_and_what_lives_is_kept(runtime):
    mine = rundir.create()
    script = "import os; from sandbox_nb import rundir; print(rundir.create(), flush=True); os._exit(0)"
    left = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert os.path.isdir(left)
    assert [str(path) for path in rundir.sweep(mine.parent)] == [left]
    assert mine.is_dir()
    assert not os.path.exists(left)


def test_a_pid_used_again_does_not_keep_a_dead_folder(runtime):
    parent = rundir.create().parent
    reused = parent / f"{os.getpid()}-1-abcdef"
    reused.mkdir()
    assert rundir.sweep(parent) == [reused]


OWNER = """
import os, sys
from sandbox_nb import rundir
print(rundir.create(), flush=True)
{then}
sys.stdin.readline()
os._exit(0)
"""


def owner(then="", inside=()):
    """A process that has a run folder until its standard input ends; returned with that folder."""
    command = [*inside, sys.executable, "-c", OWNER.format(then=then)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return process, Path(os.fsdecode(process.stdout.readline().strip()))


def end(process):
    process.stdin.close()
    process.stdout.close()
    assert process.wait() == 0


def test_who_lives_in_another_pid_namespace_keeps_its_folder_until_it_is_gone(runtime):
    inside = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespace can be made here")
    process, folder = owner(inside=inside)
    assert rundir._is_unseen(folder.name)
    assert rundir.sweep(folder.parent) == []
    assert rundir.leftovers(folder.parent) == []
    end(process)
    assert rundir.leftovers(folder.parent) == [folder]
    assert rundir.sweep(folder.parent) == [folder]
    assert not folder.exists()


FORKED = """
import signal
if os.fork() == 0:
    rundir._remove_own()
    print(os.getpid(), flush=True)
    signal.pause()
"""


def test_a_forked_child_neither_removes_what_is_its_parents_nor_keeps_it_locked(runtime):
    process, folder = owner(FORKED)
    child = int(process.stdout.readline())
    try:
        assert folder.is_dir()
        end(process)
        assert rundir.sweep(folder.parent) == [folder]
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_folder_that_is_swept_before_it_is_locked_is_made_anew(runtime, monkeypatch):
    lock, swept = rundir._lock, []

    def sweep_first(folder, how):
        if not swept:
            swept.append(folder)
            folder.rmdir()
        return lock(folder, how)

    monkeypatch.setattr(rundir, "_lock", sweep_first)
    folder = rundir.create()
    assert folder.is_dir()
    assert folder not in swept
    rundir.remove(folder)


def test_a_folder_that_cannot_be_locked_is_not_left(runtime, monkeypatch):
    def refuse(lock, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    parent = rundir.base()
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="No locks"):
        rundir.create()
    assert list(parent.iterdir()) == []


def test_what_is_named_after_a_folder_is_an_orphan_only_where_its_process_would_be_seen(monkeypatch):
    name = rundir.namesake("999999999-1-abcdef")
    assert rundir.is_orphan(name)
    assert not rundir.is_orphan(rundir.namesake(f"{os.getpid()}-{rundir._start_time(os.getpid())}-abcdef"))
    monkeypatch.setattr(rundir, "_namespace", lambda: 1)
    assert not rundir.is_orphan(name)


def test_what_is_no_run_folder_is_left_alone(runtime):
    parent = rundir.create().parent
    other = parent / "notes"
    other.mkdir()
    assert rundir.sweep(parent) == []
    assert other.is_dir()


def test_a_runtime_folder_too_long_for_sockets_is_passed_over(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    folder = rundir.create()
    assert len(os.fsencode(folder)) < 90
    rundir.remove(folder)


def test_a_folder_that_is_open_to_others_is_closed(runtime):
    (runtime / "sandbox_nb").mkdir(mode=0o755)
    assert rundir.base() == runtime / "sandbox_nb"
    assert stat.S_IMODE((runtime / "sandbox_nb").stat().st_mode) == 0o700


def test_a_link_is_no_folder_of_ours_wherever_it_leads(runtime, tmp_path):
    (runtime / "sandbox_nb").symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="it belongs to somebody else, or is no folder"):
        rundir._private(runtime / "sandbox_nb")
    assert rundir.base().parent != runtime


def test_a_folder_that_cannot_be_written_to_is_passed_over(runtime, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(runtime)))
    with pytest.raises(PermissionError, match="it cannot be written to"):
        rundir._private(runtime / "sandbox_nb")
    assert rundir.base().parent != runtime


def test_an_interpreter_that_ends_takes_its_folders_along(runtime):
    script = "from sandbox_nb import rundir; print(rundir.create())"
    made = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert made.startswith(f"{runtime}/sandbox_nb/")
    assert not os.path.exists(made)


def test_nowhere_to_go_names_every_place_tried(monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "refused")

    monkeypatch.setattr(rundir, "_private", refuse)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    with pytest.raises(FailedPrecondition, match=r"/nowhere/sandbox_nb: refused; .*/tmp/sandbox_nb-"):
        rundir.create()
