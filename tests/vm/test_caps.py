"""Caps: who holds a machine to them is decided by looking at the host; here trees of files say what hosts say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_nb import binaries, rundir
from sandbox_nb.errors import CapReached, FailedPrecondition, ResourceExhausted, Unavailable
from sandbox_nb.vm import caps, cgroup, systemd
from sandbox_nb.vm.caps import Caps, confine
from sandbox_nb.vm.process import Child

ALIVE = f"{os.getpid()}-{rundir._start_time(os.getpid())}-abc123"
DEAD = "999999999-1-abc123"

V2_FILES = ("cgroup.procs", "cgroup.subtree_control", "memory.max", "memory.swap.max", "cpu.max", "pids.max")


class Host:
    """A file system as the kernel and systemd show it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)
        (root / "sys/fs/cgroup").mkdir(parents=True)
        self.groups: list[str] = []
        self.mounts: list[str] = ["25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"]

    def in_group(self, line: str) -> None:
        """Say a line of /proc/self/cgroup."""
        self.groups.append(line)
        (self.root / "proc/self/cgroup").write_text("\n".join(self.groups) + "\n")

    def mount(self, kind: str, at: str, controllers: str = "", top: str = "/", options: str = "rw,nosuid") -> None:
        """Mount a tree of groups."""
        self.mounts.append(f"30 25 0:26 {top} {at} {options} shared:4 - {kind} {kind} rw,{controllers}")
        (self.root / "proc/self/mountinfo").write_text("\n".join(self.mounts) + "\n")

    def group(self, path: str, controllers="cpu memory pids", enabled="cpu memory pids", procs="") -> Path:
        """A group of version 2, as the kernel fills its folder."""
        folder = self.root / "sys/fs/cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("cgroup.controllers", controllers),
            ("cgroup.subtree_control", enabled),
            ("cgroup.procs", procs),
        ):
            (folder / name).write_text(text)
        if path:  # the root of all has no type
            (folder / "cgroup.type").write_text("domain\n")
        return folder

    def systemd(self) -> None:
        """Have systemd run it."""
        (self.root / "run/systemd/system").mkdir(parents=True)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.fixture
def container(host):
    """Where a container is given its part of version 2, with its processes in a group beside ours."""
    host.mount("cgroup2", "/sys/fs/cgroup")
    host.in_group("0::/jupyter")
    host.top = host.group("")
    host.own = host.group("jupyter", enabled="", procs="1\n17\n")
    return host


def test_a_group_is_made_beside_ours_where_controllers_are_handed_down(container):
    place = cgroup.place(container.root)
    assert place.version == 2
    assert set(place.folders.values()) == {container.top}, "ours holds processes, and can hand nothing down"
    assert set(place.folders) == {"memory", "cpu", "pids"}


def test_a_group_without_processes_hands_down_what_it_has(container):
    container.group("jupyter", enabled="", procs="")
    place = cgroup.place(container.root)
    assert set(place.folders.values()) == {container.own}
    group = cgroup.make(place, ALIVE, cpu=False)
    assert (container.own / "cgroup.subtree_control").read_text() == "+pids", "one at a time, the last written"
    assert group.unique == [container.own / f"sandbox_nb-{rundir.namesake(ALIVE)}"]
    assert group.remove()


@pytest.mark.parametrize(("cpu", "trees"), [(False, ["memory", "pids"]), (True, ["cpu", "memory", "pids"])])
def test_processors_are_left_as_they_are_unless_they_are_limited(version_1, cpu, trees):
    group = cgroup.make(cgroup.place(version_1.root), ALIVE, cpu=cpu)
    assert sorted(group.folders) == trees
    assert group.remove()


@pytest.mark.parametrize("lost", ["memory", "cpu"])
def test_a_tree_without_what_is_needed_is_none(container, lost):
    left = " ".join({"memory", "cpu", "pids"} - {lost})
    container.group("", controllers=left, enabled=left)
    container.group("jupyter", controllers=left, enabled="", procs="1\n")
    assert cgroup.place(container.root) is None


def test_processes_are_not_counted_where_they_cannot_be(container):
    for path in ("", "jupyter"):
        container.group(path, controllers="cpu memory", enabled="cpu memory")
    assert set(cgroup.place(container.root).folders) == {"memory", "cpu"}


def test_a_tree_that_is_mounted_to_be_read_is_none(host):
    host.mount("cgroup2", "/sys/fs/cgroup", options="ro,nosuid")
    host.in_group("0::/")
    host.group("")
    assert cgroup.place(host.root) is None


def test_a_part_of_the_tree_that_does_not_hold_us_is_none(host):
    host.mount("cgroup2", "/sys/fs/cgroup", top="/docker/other")
    host.in_group("0::/docker/ours")
    host.group("")
    assert cgroup.place(host.root) is None


def test_a_part_of_the_tree_that_holds_us_is_found_by_where_it_begins(host):
    host.mount("cgroup2", "/sys/fs/cgroup", top="/docker/ours")
    host.in_group("0::/docker/ours/job")
    host.group("")
    own = host.group("job")
    assert set(cgroup.place(host.root).folders.values()) == {own}


LOOK = """
import os, sys
from pathlib import Path
from sandbox_nb.vm import cgroup
root, uid = Path(sys.argv[1]), int(sys.argv[2])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
print(cgroup.place(root))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_tree_that_is_somebody_elses_is_none(container):
    for path in [container.root, *container.root.parents]:
        if path.owner() == "root" and path.stat().st_mode & 0o005 != 0o005 and "pytest" in str(path):
            path.chmod(0o755)

    def seen(uid):
        looking = [sys.executable, "-c", LOOK, str(container.root), str(uid)]
        done = subprocess.run(looking, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert seen(0) == f"{container.top} (version 2)"
    assert seen(54_321) == "None"
    for name in (".", "cgroup.procs", "cgroup.subtree_control"):
        os.chown(container.top / name, 54_321, 54_321)
    assert seen(54_321) == f"{container.top} (version 2)"
    os.chown(container.top / "cgroup.procs", 0, 0)
    assert seen(54_321) == "None", "nobody could be put in"


def test_systemds_tree_is_its_own(container):
    container.systemd()
    assert cgroup.place(container.root) is None


@pytest.mark.parametrize(
    ("unit", "marked", "found"),
    [
        ("system.slice/jupyter.service", True, True),
        ("system.slice/jupyter.service", False, False),
        ("user.slice/user-1000.slice/user@1000.service", True, False),
        ("user.slice/user-1000.slice/user@1000.service/app.slice", True, False),
        ("user.slice/user-1000.slice/user@1000.service/app.slice/lab.scope", True, True),
        ("user.slice/user-1000.slice/session-3.scope", False, False),
    ],
)
def test_what_systemd_delegates_is_ours(host, unit, marked, found):
    host.systemd()
    host.mount("cgroup2", "/sys/fs/cgroup")
    host.in_group(f"0::/{unit}/main")
    folder = host.root / "sys/fs/cgroup"
    for part in ("", *unit.split("/")):
        folder = folder / part
        host.group(str(folder.relative_to(host.root / "sys/fs/cgroup")).removeprefix("."))
        if part.startswith("user@"):
            os.setxattr(folder, "user.delegate", b"1")
    if marked:
        os.setxattr(folder, "user.delegate", b"1")
    host.group(f"{unit}/main", enabled="", procs="17\n")
    place = cgroup.place(host.root)
    assert (place is not None) is found
    if found:
        assert set(place.folders.values()) == {folder}


@pytest.fixture
def version_1(host):
    """A tree for each controller, as old hosts have, and none of version 2."""
    for number, (controllers, group) in enumerate({"memory": "/job", "cpu,cpuacct": "/", "pids": "/"}.items(), 1):
        host.mount("cgroup", f"/sys/fs/cgroup/{controllers}", controllers)
        host.in_group(f"{number}:{controllers}:{group}")
        (host.root / "sys/fs/cgroup" / controllers / group.strip("/")).mkdir(parents=True)
    host.in_group("0::/")
    return host


def test_version_1_has_a_group_for_each_controller_in_our_own(version_1):
    place = cgroup.place(version_1.root)
    tree = version_1.root / "sys/fs/cgroup"
    assert place.folders == {"memory": tree / "memory/job", "cpu": tree / "cpu,cpuacct", "pids": tree / "pids"}
    assert place.version == 1
    version_1.systemd()
    assert cgroup.place(version_1.root) is None


def test_a_host_that_says_nothing_has_no_place(tmp_path):
    assert cgroup.place(tmp_path) is None


def test_what_the_dead_left_is_swept_and_the_living_keep_theirs(container):
    dead, alive = (f"sandbox_nb-{rundir.namesake(name)}" for name in (DEAD, ALIVE))
    kept = {alive, f"sandbox_nb-{DEAD}-1", "sandbox_nb-of-another", DEAD, "sandbox_nb-busy"}
    for name in (dead, *kept):
        (container.top / name).mkdir()
    place = cgroup.place(container.root)
    assert cgroup.leftovers(place) == [container.top / dead]
    cgroup.sweep(place)
    assert {path.name for path in container.top.iterdir() if path.is_dir()} - {"jupyter"} == kept


def files(group, names):
    """Put the files into a group's folder that the kernel would."""
    for name in names:
        (group / name).write_text("")


def test_limits_are_written_in_the_words_of_version_2(tmp_path):
    files(tmp_path, V2_FILES)
    group = cgroup.Group({"memory": tmp_path, "cpu": tmp_path, "pids": tmp_path}, 2)
    group.limit_memory(300 << 20)
    group.limit_cpus(1.5)
    group.limit_tasks(99)
    said = {name: (tmp_path / name).read_text() for name in V2_FILES[2:]}
    bytes_said = str(300 << 20)
    assert said == {
        "memory.max": bytes_said,
        "memory.swap.max": bytes_said,
        "cpu.max": "150000 100000",
        "pids.max": "99",
    }
    assert group.guard_flags == ["--cgroup", str(tmp_path)]


def test_limits_are_written_in_the_words_of_version_1(tmp_path):
    names = ("memory.limit_in_bytes", "cpu.cfs_period_us", "cpu.cfs_quota_us")
    files(tmp_path, names)
    group = cgroup.Group({"memory": tmp_path, "cpu": tmp_path}, 1)
    group.limit_memory(300 << 20)
    group.limit_cpus(0.5)
    group.limit_tasks(99)
    assert [(tmp_path / name).read_text() for name in names] == [str(300 << 20), "100000", "50000"]
    assert group.guard_flags == ["--tasks", str(tmp_path / "tasks")]


@pytest.mark.parametrize(
    ("events", "reached"),
    [("max 7\noom 1\noom_kill 1\n", True), ("max 7\noom 0\noom_kill 1\n", False), ("", False)],
)
def test_who_was_ended_by_a_limit_of_somebody_else_was_not_by_this(tmp_path, events, reached):
    (tmp_path / "memory.events").write_text(events)
    assert cgroup.Group({"memory": tmp_path}, 2).ran_out_of_memory() is reached


async def test_who_asks_for_nothing_is_confined_only_where_it_costs_nothing(host, with_systemd):
    assert (await confine(Caps(256), ALIVE, host.root)).how == ""
    confinement = await confine(Caps(256, cpus=0.5), ALIVE, host.root)
    assert "by a slice of" in confinement.how
    await confinement.close()


@pytest.fixture
def with_systemd(host, tmp_path, monkeypatch):
    """A systemd that notes what its programs are asked; who runs a command in a scope runs it."""
    host.systemd()
    (host.root / "run/systemd/private").touch()
    user = host.root / "run/user/systemd"
    (user / "user.control").mkdir(parents=True)
    (user / "private").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user")
    host.group("")
    host.group(f"user.slice/user-{os.geteuid()}.slice/user@{os.geteuid()}.service")
    programs = tmp_path / "programs"
    programs.mkdir()
    note = f'echo "$(basename "$0") $*" >> {tmp_path}/asked\n'
    become = 'while [ "$1" != -- ]; do shift; done\nshift\nexec "$@"'
    for name, then in (("systemctl", "exit 0"), ("systemd-run", become)):
        (programs / name).write_text(f"#!/bin/sh\n{note}{then}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    def asked():
        lines = (tmp_path / "asked").read_text().splitlines()
        return [line.replace(" --user", "") for line in lines]

    return asked


async def test_systemd_is_asked_for_a_slice_and_a_scope_for_each_process(host, with_systemd):
    confinement = await confine(Caps(256, 2, memory=300, cpus=1.5), ALIVE, host.root)
    slice_name = f"sandbox_nb_{rundir.namesake(ALIVE).replace('-', '_')}.slice"
    await confinement.limit_memory(elsewhere=1 << 20)
    child = Child.spawn(["sh", "-c", "exit 7"], name="it", guard=binaries.guard(), confinement=confinement)
    assert await child.wait() == 7
    await confinement.close()
    size = 299 << 20
    begun, limited, ran, stopped, forgotten = with_systemd()
    assert begun == f"systemctl set-property --runtime {slice_name} TasksMax=514 CPUQuota=150%"
    assert limited == f"systemctl set-property --runtime {slice_name} MemoryMax={size} MemorySwapMax={size}"
    assert ran.startswith(f"systemd-run --scope --quiet --collect --slice={slice_name} -- ")
    assert stopped == f"systemctl stop {slice_name}"
    assert forgotten == f"systemctl revert {slice_name}"


async def test_what_dead_processes_left_with_systemd_is_forgotten(host, with_systemd):
    manager = systemd.manager(host.root)
    control = manager.runtime / ("user.control" if manager.user else "system.control")
    for name in (rundir.namesake(DEAD), rundir.namesake(ALIVE), f"{DEAD}-1"):
        (control / f"sandbox_nb_{name.replace('-', '_')}.slice.d").mkdir(parents=True)
    caps.sweep(host.root)
    dead = f"sandbox_nb_{rundir.namesake(DEAD).replace('-', '_')}.slice"
    assert with_systemd() == [f"systemctl stop {dead}", f"systemctl revert {dead}"]


async def test_a_systemd_that_refuses_leaves_it_to_the_limits_of_processes(host, with_systemd, tmp_path):
    (tmp_path / "programs/systemctl").write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    confinement = await confine(Caps(256, memory=1024), ALIVE, host.root)
    assert confinement.how == "768 MiB for each process beside the guest's 256, by limits of each process"


@pytest.mark.parametrize("missing", ["program", "socket", "controller", "systemd"])
def test_a_systemd_that_cannot_hold_a_limit_is_none(host, with_systemd, missing, tmp_path, monkeypatch):
    manager = systemd.manager(host.root)
    if missing == "program":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif missing == "socket":
        manager.runtime.joinpath("private").unlink(missing_ok=True)
    elif missing == "controller":
        host.group("", controllers="memory pids")
        host.group(f"user.slice/user-{os.geteuid()}.slice/user@{os.geteuid()}.service", controllers="memory pids")
    else:
        (host.root / "run/systemd/system").rmdir()
    assert manager is not None
    assert systemd.manager(host.root) is None


async def test_without_either_each_process_has_limits(tmp_path):
    confinement = await confine(Caps(256, memory=300, cpus=1), ALIVE, tmp_path)
    spoken = "import os, resource; print(resource.getrlimit(resource.RLIMIT_DATA), len(os.sched_getaffinity(0)))"
    command = [sys.executable, "-c", spoken]
    child = Child.spawn(command, name="it", guard=binaries.guard(), confinement=confinement)
    assert await child.wait() == 0
    assert child.log.tail() == f"({44 << 20}, {44 << 20}) 1"


async def test_a_part_of_a_processor_is_refused_where_nothing_holds_it(tmp_path):
    with pytest.raises(FailedPrecondition, match="host_cpus=1.5: only whole processors can be held here"):
        await confine(Caps(256, cpus=1.5), ALIVE, tmp_path)


async def test_more_processors_than_there_are_hold_nobody(tmp_path):
    confinement = await confine(Caps(256, cpus=4096), ALIVE, tmp_path)
    assert list(confinement.guard_flags) == []


async def test_who_outgrows_the_limit_of_a_process_is_told_which(tmp_path):
    confinement = await confine(Caps(256, memory=296), ALIVE, tmp_path)
    grows = [sys.executable, "-c", "bytes(100 << 20)"]
    child = Child.spawn(grows, name="it", guard=binaries.guard(), confinement=confinement)
    await child.wait()
    error = await child.end("it ended")
    assert isinstance(error, CapReached)
    assert isinstance(error, (Unavailable, ResourceExhausted))
    assert "host_memory=296 MiB" in str(error)
    fails = Child.spawn(["sh", "-c", "exit 3"], name="it", guard=binaries.guard(), confinement=confinement)
    await fails.wait()
    assert type(await fails.end("it ended")) is Unavailable
