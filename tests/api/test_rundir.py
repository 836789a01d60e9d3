"""Run folders: private, short, and swept when their owner is gone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

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
