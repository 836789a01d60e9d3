"""Hosts that are short of something: a clear error or a machine that works, and nothing left either way."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import sys
import time

import pytest

from sandbox_nb import Sandbox, launch

pytestmark = pytest.mark.vm

TRY = """
import os, sys
from sandbox_nb import Sandbox, SandboxError, launch, sandbox
{before}
sb = Sandbox("hard")
try:
    sb.start({options})
    print("started", sb.boot.note)
    {after}
    sb.stop()
except SandboxError as error:
    print(type(error).__name__, error)
left = [name for name in os.listdir(f"/proc/{{os.getpid()}}/task/{{os.getpid()}}")] and \
    open(f"/proc/self/task/{{os.getpid()}}/children").read().split()
print("left", left)
"""


def tried(before="", options="", after="pass", setup="", **environment):
    """What a process says that starts a machine on a host made hard by ``before``, in Python, or ``setup``, in sh.

    The shell has a mount namespace of its own.
    """
    program = [sys.executable, "-c", TRY.format(before=before, options=options, after=after)]
    if setup:
        program = ["unshare", "--mount", "sh", "-ec", f'{setup}\nexec "$@"', "sh", *program]
    done = subprocess.run(program, capture_output=True, text=True, env=os.environ | environment, timeout=100)
    assert done.returncode == 0, done.stderr
    *lines, left = done.stdout.splitlines()
    assert left == "left []"
    return "\n".join(lines)


def files(limit):
    return f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))"


def test_sixty_four_open_files_are_enough():
    said = tried(files(64), after="print(sb.run('echo hi').stdout, sb.run('hostname').stdout)")
    assert said.startswith("started")
    assert "hi" in said
    assert "hard" in said


@pytest.mark.parametrize("limit", [30, 24, 20, 18, 15, 12])
def test_fewer_are_said_to_be_too_few(limit):
    said = tried(files(limit))
    assert said.startswith(("ResourceExhausted", "Unavailable"))
    assert "ulimit -n" in said


needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes hosts hard by mounting")


@needs_mounts
@pytest.mark.parametrize(
    "setup", ["mount -t tmpfs -o size=64k tmpfs /dev/shm", "mount --bind /proc/self /dev/shm"]
)
def test_no_shared_memory_file_system_is_needed(setup):
    said = tried(setup=setup, after="print(sb.run('echo hi').stdout)")
    assert said.startswith("started")
    assert "hi" in said


@needs_mounts
def test_nowhere_to_put_sockets_is_said_with_every_place_tried():
    # What is in /tmp stays: the package may be there.
    setup = "mount --bind /tmp /tmp; mount -o remount,bind,ro /tmp; mount -t tmpfs -o ro tmpfs /mnt"
    said = tried(setup=setup, TMPDIR="/mnt", XDG_RUNTIME_DIR="/mnt")
    assert said.startswith("FailedPrecondition no folder for the sandbox's sockets: ")
    for place in ("/mnt/sandbox_nb: ", "/mnt/sandbox_nb-0: ", "/tmp/sandbox_nb-0: "):
        assert place in said


@needs_mounts
def test_a_temporary_folder_that_cannot_be_written_is_passed_over():
    said = tried(TMPDIR="/proc/self", XDG_RUNTIME_DIR="/proc/self")
    assert said.startswith("started")


@needs_mounts
@pytest.mark.parametrize("inodes", [2, 3, 4, 5])
def test_a_full_disk_at_the_start_is_said(inodes):
    said = tried(setup=f"mount -t tmpfs -o nr_inodes={inodes} tmpfs /mnt", XDG_RUNTIME_DIR="/mnt")
    assert said.startswith("ResourceExhausted the machine cannot be started: the disk is full"), said


@needs_mounts
def test_a_disk_that_gets_full_takes_the_log_and_not_the_machine(tmp_path):
    setup = f"mount -t tmpfs -o size=256k tmpfs {tmp_path}"
    after = (
        "sb.run('seq 200000 > /dev/console')\n"
        "    print(sb.run('echo hi').stdout)\n"
        "    sb.write('/big', b'x' * 1000000)\n"
        "    try:\n"
        f"        sb.copy_from('/big', '{tmp_path}/big')\n"
        "    except SandboxError as error:\n"
        "        print(type(error).__name__, error)\n"
        f"    print(sorted(os.listdir('{tmp_path}')))"
    )
    said = tried(options=f"state_dir='{tmp_path}/state'", setup=setup, after=after)
    assert "hi" in said
    assert "ResourceExhausted" in said
    assert said.endswith("['state']"), said


@needs_mounts
def test_a_disk_too_full_for_a_template_costs_the_template_alone(tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(
        os.path.expanduser("~/.cache/sandbox_nb/images"), cache / "sandbox_nb/images", copy_function=os.link
    )
    (cache / "sandbox_nb/templates").mkdir()
    setup = f"mount -t tmpfs -o size=1m tmpfs {cache}/sandbox_nb/templates"
    said = tried(setup=setup, after="print(sb.run('echo hi').stdout)", XDG_CACHE_HOME=str(cache))
    assert said.startswith("started no template was saved")
    assert "hi" in said


@pytest.mark.parametrize("year", [1985, 2085])
def test_a_clock_that_jumps_does_no_harm(monkeypatch, year):
    """Time-outs are by a clock that cannot jump; the guest gets whatever the host believes."""
    then = datetime.datetime(year, 6, 1, tzinfo=datetime.UTC).timestamp()
    with Sandbox("clock") as sandbox:
        with monkeypatch.context() as jumped:
            jumped.setattr(launch.time, "time_ns", lambda: int(then * 1e9))
            jumped.setattr(time, "time", lambda: then)
            sandbox.start(idle_timeout=3600)
            assert sandbox.run("date -u +%Y", timeout=30).stdout == f"{year}\n"
        assert sandbox.run("echo on", timeout=30).stdout == "on\n"
