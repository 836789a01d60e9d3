"""Caps: a machine gets no more of its host than it may have, says so when that ends it, and leaves no group."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import alive, descendants

import sandbox_nb.binaries
from sandbox_nb import CapReached, FailedPrecondition, Options, Sandbox, State, bringup, standby
from sandbox_nb.vm import caps, cgroup

pytestmark = pytest.mark.vm

PLACE = cgroup.place()
needs_group = pytest.mark.skipif(PLACE is None, reason="no control group can be made here")

GROW = "mount -t tmpfs -o size=90% none /mnt && head -c 150000000 /dev/zero > /mnt/much"
"""A command that has a guest touch 150 MB more of its memory, which 256 MiB have room for."""


@pytest.fixture
def ours():
    """The groups of this test's machines; those of fixtures for the whole session are there too."""

    def groups():
        name = f"{cgroup.PREFIX}{os.getpid()}-*"
        return {path for parent in set(PLACE.folders.values()) for path in parent.glob(name)}

    before = groups()
    return lambda: groups() - before


def workers(sandbox):
    """QEMU, and what works for it on the host."""
    running = sandbox.asynchronous._life.running
    return [pid for child in (running.machine.child, running.link.device) for pid in descendants(child.pid)]


@pytest.fixture
def without_groups(tmp_path, monkeypatch):
    """A host that has neither control groups nor systemd."""
    monkeypatch.setattr(bringup.caps, "confine", functools.partial(caps.confine, root=tmp_path))


@needs_group
def test_a_machine_that_wants_too_much_memory_ends_and_says_so(monkeypatch, ours):
    with Sandbox("greedy") as sandbox:
        with monkeypatch.context() as less_than_may_be_asked_for:
            less_than_may_be_asked_for.setattr(Options, "_check_caps", lambda _: None)
            sandbox.start(host_memory=200)
        assert "200 MiB, by a control group" in sandbox.boot.caps
        with pytest.raises(CapReached, match=r"host_memory=200 MiB for a guest of 256 MiB.*give more"):
            sandbox.run(GROW)
        assert sandbox.state is State.FAILED
        sandbox.start()
        assert "768 MiB, by a control group" in sandbox.boot.caps
    assert ours() == set()


@needs_group
def test_all_that_works_for_a_machine_is_in_its_group(ours):
    with Sandbox.started(host_cpus=0.5) as sandbox:
        held = {
            controller: {int(pid) for group in ours() if group.parent == parent for pid in procs(group)}
            for controller, parent in PLACE.folders.items()
        }
        assert held == {controller: set(workers(sandbox)) for controller in PLACE.folders}
        assert len(workers(sandbox)) == 2
        assert "0.5 processors" in sandbox.boot.caps


def procs(group):
    return (group / "cgroup.procs").read_text().split()


@needs_group
def test_a_machine_that_wants_too_many_processors_waits_for_them(ours):
    with Sandbox.started(host_cpus=0.2) as sandbox:
        (group,) = (path for path in ours() if path.parent == PLACE.folders["cpu"])

        def throttled():
            return dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())["nr_throttled"]

        before = int(throttled())
        sandbox.run("i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done", check=True)
        assert int(throttled()) > before


def test_a_machine_that_stands_by_is_held_as_it_is_to_be(monkeypatch):
    monkeypatch.setattr(standby, "QUIET", 0.0)
    with Sandbox.started(standby=1, host_memory=700) as one:
        while not standby.ready():
            time.sleep(0.02)
        with Sandbox.started(standby=1, host_memory=701) as other:
            assert other.boot.kind != "standby", "it is held to less"
        with Sandbox.started(standby=1, host_memory=700) as taken:
            assert taken.boot.kind == "standby"
            assert taken.boot.caps == one.boot.caps


OWNER = """
import sys
from sandbox_nb import Sandbox
sb = Sandbox.started()
print("ready", flush=True)
sys.stdin.read()
"""


@needs_group
def test_the_group_of_a_killed_owner_is_swept_by_the_next_start():
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout.readline() == b"ready\n"
        pids = descendants(owner.pid)
        owner.send_signal(signal.SIGKILL)
    while alive(pids):
        time.sleep(0.01)
    left = [path for path in caps.leftovers() if path.name.startswith(f"{cgroup.PREFIX}{owner.pid}-")]
    unasked = {folder for controller, folder in PLACE.folders.items() if controller != "cpu"}
    assert {path.parent for path in left} == unasked
    with Sandbox.started():
        assert not [path for path in left if path.exists()]


def test_where_there_is_no_group_each_process_is_held(without_groups):
    with Sandbox.started(host_memory=1280, host_cpus=1) as sandbox:
        assert "1024 MiB for each process beside the guest's 256" in sandbox.boot.caps
        for pid in workers(sandbox):
            limits = Path(f"/proc/{pid}/limits").read_text()
            (line,) = (line for line in limits.splitlines() if line.startswith("Max data size"))
            assert line.split()[3:5] == [str(1024 << 20)] * 2
            assert len(os.sched_getaffinity(pid)) == 1
        assert sandbox.run("echo works").stdout == "works\n"


def test_too_little_for_each_process_is_said_at_the_start(without_groups):
    with Sandbox("tight") as sandbox:
        with pytest.raises(CapReached, match=r"host_memory=300 MiB.*512 MiB beside the guest's"):
            sandbox.start(host_memory=300)
        with pytest.raises(FailedPrecondition, match="only whole processors"):
            sandbox.start(host_cpus=0.5)
        sandbox.start()
        assert sandbox.boot.caps == ""
        assert sandbox.run("echo works").stdout == "works\n"


IN_THE_GUEST = """
import asyncio, os, pathlib, sys
from sandbox_nb import binaries, rundir
from sandbox_nb.vm import caps, cgroup
from sandbox_nb.vm.process import Child

async def ended(confinement, *argv):
    child = Child.spawn(argv, name="it", guard=binaries.guard(), confinement=confinement)
    await child.wait()
    return child

async def main():
    name = f"{os.getpid()}-{rundir._start_time(os.getpid())}-abc123"
    confinement = await caps.confine(caps.Caps(20, memory=64, cpus=0.2), name)
    print(confinement.how)
    await confinement.limit_memory(elsewhere=1 << 20)
    (group,) = pathlib.Path("/sys/fs/cgroup").rglob(f"sandbox_nb-{rundir.namesake(name)}")
    print((group / "memory.max").read_text().strip(), (group / "pids.max").read_text().strip())
    child = await ended(confinement, "sh", "-c", "cat /proc/self/cgroup; seq 20000 > /dev/null")
    print(child.log.tail().endswith(group.name), "nr_throttled 0\\n" in (group / "cpu.stat").read_text())
    child = await ended(confinement, sys.executable, "-c", "bytes(b'x' * (200 << 20))")
    print(child.returncode, type(await child.end("it ended")).__name__)
    await confinement.close()
    print(group.exists())

asyncio.run(main())
"""


def test_a_kernel_that_has_version_2_holds_what_it_is_told():
    """A guest's, whatever the host's has: there this is a machine's host."""
    package = Path(sandbox_nb.__file__).parent
    with Sandbox.started(image="python") as sandbox:
        sandbox.mkdir("/tmp/here/sandbox_nb/_bin", parents=True)
        for path in (*package.glob("*.py"), *package.glob("vm/*.py"), *package.glob("guest/__init__.py")):
            inside = f"/tmp/here/{path.relative_to(package.parent)}"
            sandbox.mkdir(Path(inside).parent, exist_ok=True)
            sandbox.write(inside, path.read_bytes())
        guard = sandbox_nb.binaries.guard()
        sandbox.write(f"/tmp/here/sandbox_nb/_bin/{guard.name}", guard.read_bytes(), mode=0o755)
        done = sandbox.run(["python3", "-c", IN_THE_GUEST], cwd="/tmp/here", check=True)
    assert done.stdout.splitlines() == [
        "64 MiB, 0.2 processors, by a control group (version 2)",
        f"{63 << 20} 513",
        "True False",
        "137 CapReached",
        "False",
    ]
