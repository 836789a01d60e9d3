"""Folders shared with a real machine, through virtiofs and through 9p: both ways, read-only, and no way out."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading

import pytest

from sandbox_nb import binaries
from sandbox_nb.devices import Filesystem
from sandbox_nb.errors import InvalidArgument, NotFound, ResourceExhausted
from sandbox_nb.vm import virtiofsd

pytestmark = pytest.mark.vm


@pytest.fixture(params=["virtiofs", "9p"])
def carrier(request, machine, monkeypatch):
    """Each of the ways a folder is shared; virtiofs where it works."""

    async def none(folder, guard):
        return None

    if request.param == "9p":
        monkeypatch.setattr(virtiofsd, "find", none)
    elif machine.wait(virtiofsd.find(machine.folder, machine.guard)) is None:
        pytest.skip("no virtiofsd works for this user")
    return request.param


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "shared"
    path.mkdir()
    return path


@pytest.fixture
def secret(tmp_path):
    """A file of the host outside of every share, and what nobody may ever read of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    word = secrets.token_hex(16)
    (outside / "file").write_text(word)
    return outside / "file", word


def test_what_either_side_writes_the_other_reads_at_once(machine, carrier, folder):
    attached = machine.attach(Filesystem("src", folder))
    assert (attached.kind, attached.how, attached.source) == ("share", carrier, str(folder))
    machine.mount(attached)
    for index in range(5):
        words = "x" * (index + 1) * 1000
        (folder / "host").write_text(words)
        assert machine.sh("cat /mnt/host") == words
        machine.sh(f"mkdir -p /mnt/deep/er && echo guest {index} > /mnt/deep/er/file")
        assert (folder / "deep/er/file").read_text() == f"guest {index}\n"
    (folder / "host").unlink()
    assert machine.sandbox.run("cat /mnt/host").returncode != 0


def test_what_the_guest_makes_is_the_callers_with_the_guests_mode(machine, carrier, folder):
    machine.mount(machine.attach(Filesystem("src", folder)))
    machine.sh(
        "umask 022; echo '#!/bin/sh' > /mnt/tool; chmod 750 /mnt/tool; mkdir /mnt/dir; ln -s tool /mnt/link"
    )
    for name, mode in (("tool", 0o100750), ("dir", 0o040755)):
        found = (folder / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode) == (os.getuid(), os.getgid(), mode)
    assert os.readlink(folder / "link") == "tool"


def test_programs_run_and_files_are_mapped_from_it(machine, carrier, folder):
    machine.mount(machine.attach(Filesystem("src", folder)))
    (folder / "run").write_text("#!/bin/sh\necho ran\n")
    (folder / "run").chmod(0o755)
    machine.sh("cp $(readlink -f /proc/self/exe) /mnt/busybox")
    assert machine.sh("/mnt/run") == "ran"
    assert machine.sh("/mnt/busybox echo mapped") == "mapped"


HARM = """
cd /mnt; echo x > new; echo x >> file; mkdir d; ln -s a l; ln file h; mknod n p
touch -d 2000-01-01 file; mv file g; rm file; chmod 0 file
"""


@pytest.mark.parametrize("readonly", [False, True])
def test_read_only_is_held_by_the_host(machine, carrier, folder, readonly):
    (folder / "file").write_text("as it was")
    attached = machine.attach(Filesystem("src", folder, readonly))
    if readonly and carrier == "virtiofs" and attached.how == "9p":
        pytest.skip("this virtiofsd cannot share read-only, so 9p did, which is tested beside")
    # As a guest that means harm mounts it.
    machine.mount(attached, without=["ro"])
    assert machine.sh("cat /mnt/file") == "as it was"
    done = machine.sandbox.run(HARM)
    if readonly:
        assert done.returncode != 0
        assert [entry.name for entry in folder.iterdir()] == ["file"]
        assert (folder / "file").read_text() == "as it was"
        assert (folder / "file").stat().st_mode & 0o777 != 0
    else:
        assert sorted(entry.name for entry in folder.iterdir()) != ["file"]


def test_two_shares_of_either_kind_live_side_by_side(machine, carrier, folder, tmp_path):
    machine.sh("mkdir -p /tmp/a /tmp/b")
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
        machine.mount(machine.attach(Filesystem(name, tmp_path / name, name == "b")), f"/tmp/{name}")
    try:
        assert machine.sh("cat /tmp/a/name /tmp/b/name") == "ab"
    finally:
        machine.sh("umount /tmp/a /tmp/b")


# No way out


def test_links_and_dots_resolve_in_the_guest(machine, carrier, folder, secret):
    path, word = secret
    attached = machine.attach(Filesystem("src", folder))
    machine.mount(attached)
    (folder / "absolute").symlink_to(path)
    (folder / "relative").symlink_to("../outside/file")
    (folder / "folder").symlink_to(path.parent)
    machine.sh(f"ln -s {path} /mnt/mine; ln -s ../outside /mnt/up; mkdir /mnt/sub")
    ways = [
        "/mnt/absolute",
        "/mnt/relative",
        "/mnt/folder/file",
        "/mnt/mine",
        "/mnt/up/file",
        "/mnt/../outside/file",
        "/mnt/sub/../../outside/file",
        f"/mnt/..{path}",
    ]
    for way in ways:
        done = machine.sandbox.run(f"cat {way}")
        assert done.returncode != 0
        assert word not in done.stdout
    # A hard link to a link is a link, and one to what is outside cannot be named.
    machine.sandbox.run(
        f"ln /mnt/mine /mnt/hard; ln {path} /mnt/hard2; cp /mnt/mine /mnt/copy; mv /mnt/up/file /mnt/moved"
    )
    assert word not in machine.sandbox.run("cat /mnt/hard /mnt/hard2 /mnt/copy /mnt/moved").stdout
    # Nor is anything written through one.
    machine.sandbox.run(
        "echo gone > /mnt/absolute; echo gone > /mnt/folder/file; rm -rf /mnt/folder/; chmod 777 /mnt/mine"
    )
    assert path.read_text() == word
    assert not path.stat().st_mode & 0o111


RACE = """
for i in $(seq {rounds}); do
  for f in /mnt/swap/file /mnt/swap/../swap/file /mnt/deep/swap/file; do cat $f; echo; echo w > $f.new; done
done 2>/dev/null
"""


@pytest.mark.parametrize("rounds", [40, pytest.param(1000, marks=pytest.mark.soak)])
def test_renames_that_race_the_server_open_no_way(machine, carrier, folder, secret, rounds):
    """A folder the guest walks into is swapped for a link to a host-only folder, over and over, under its feet."""
    path, word = secret
    for parent in (folder, folder / "deep"):
        (parent / "swap").mkdir(parents=True)
        (parent / "swap" / "file").write_text("decoy")
        (parent / "link").symlink_to(path.parent)
    machine.mount(machine.attach(Filesystem("src", folder)))
    ended = threading.Event()
    swaps = 0

    def swap():
        nonlocal swaps
        while not ended.is_set():
            for parent in (folder, folder / "deep"):
                os.rename(parent / "swap", parent / "kept")
                os.rename(parent / "link", parent / "swap")
                os.rename(parent / "swap", parent / "link")
                os.rename(parent / "kept", parent / "swap")
                swaps += 1

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        read = machine.sandbox.run(RACE.format(rounds=rounds)).stdout
    finally:
        ended.set()
        swapping.join()
    assert swaps > 100
    assert "decoy" in read
    assert word not in read
    assert os.listdir(path.parent) == ["file"]


# Coming and going


def test_a_share_that_went_leaves_nothing(machine, carrier, folder):
    before = sorted(os.listdir(machine.folder))
    for _ in range(6):  # more than there are slots
        machine.mount(machine.attach(Filesystem("src", folder)))
        machine.sh("echo x > /mnt/x && umount /mnt")
        machine.detach("src")
    assert sorted(os.listdir(machine.folder)) == before
    assert os.listdir(machine.folder / "9p") == []


def test_four_slots_of_a_kind_are_the_most_and_said(machine, carrier, tmp_path):
    if carrier != "9p":
        pytest.skip("virtiofs has no slots")
    for index in range(4):
        machine.attach(Filesystem(f"t{index}", tmp_path))
    with pytest.raises(ResourceExhausted, match="4 read-write folders"):
        machine.attach(Filesystem("t4", tmp_path))
    machine.attach(Filesystem("t4", tmp_path, readonly=True))
    machine.detach("t1")
    machine.attach(Filesystem("t5", tmp_path))


def test_a_tag_longer_than_9p_takes_is_said(machine, carrier, folder):
    tag = "t" * 32
    if carrier == "9p":
        with pytest.raises(InvalidArgument, match="31 bytes"):
            machine.attach(Filesystem(tag, folder))
    else:
        machine.mount(machine.attach(Filesystem(tag, folder)))


def test_what_is_no_folder_is_refused(machine, folder):
    (folder / "file").touch()
    with pytest.raises(InvalidArgument, match="no folder"):
        machine.attach(Filesystem("f", folder / "file"))
    with pytest.raises(NotFound, match="is not there"):
        machine.attach(Filesystem("f", folder / "none"))
    assert machine.machine.devices == []


def test_a_folder_with_any_name_is_shared(machine, carrier, tmp_path):
    odd = tmp_path / "a,b=c \\ü:d"
    odd.mkdir()
    (odd / "file").write_text("odd")
    machine.mount(machine.attach(Filesystem("odd", odd)))
    assert machine.sh("cat /mnt/file") == "odd"


# Finding a virtiofsd


@pytest.mark.parametrize("script", ["exit 1", "sleep 100", "kill -9 $$"])
def test_a_virtiofsd_that_does_not_work_is_not_used(machine, tmp_path, monkeypatch, script):
    program = tmp_path / "virtiofsd"
    program.write_text(f"#!/bin/sh\n[ $1 = --help ] && echo --shared-dir --readonly || {script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(virtiofsd, "PROOF_TIMEOUT", 0.5)
    monkeypatch.setattr(virtiofsd, "_candidates", lambda: [program])
    before = sorted(os.listdir(machine.folder))
    assert machine.wait(virtiofsd.find(machine.folder, machine.guard)) is None
    assert sorted(os.listdir(machine.folder)) == before
    (tmp_path / "shared").mkdir()
    assert machine.attach(Filesystem("s", tmp_path / "shared")).how == "9p"


async def test_a_virtiofsd_that_did_not_work_is_asked_again_later(tmp_path, monkeypatch):
    program = tmp_path / "virtiofsd"
    program.touch(mode=0o755)
    answers = [None, virtiofsd.Virtiofsd(program, rust=True, readonly=True)]

    async def prove(*_):
        return answers.pop(0)

    monkeypatch.setattr(virtiofsd, "_candidates", lambda: [program])
    monkeypatch.setattr(virtiofsd, "_prove", prove)
    found = [await virtiofsd.find(tmp_path, binaries.guard()) for _ in range(2)]
    later = virtiofsd.time.monotonic() + virtiofsd.RETRY
    monkeypatch.setattr(virtiofsd.time, "monotonic", lambda: later)
    found += [await virtiofsd.find(tmp_path, binaries.guard()) for _ in range(2)]
    assert [one is not None for one in found] == [False, False, True, True]


def test_each_program_is_told_what_it_understands(tmp_path):
    c, rust = (virtiofsd.Virtiofsd(tmp_path, rust=kind, readonly=kind) for kind in (False, True))
    assert c.argv(tmp_path / "a,b", 7, readonly=False)[1:] == [
        "-f",
        "-o",
        f"source={tmp_path}/a\\,b,cache=auto,timeout=0",
        "--fd=7",
    ]
    assert rust.argv(tmp_path, 7, readonly=True)[1:] == [
        f"--shared-dir={tmp_path}",
        "--cache=never",
        "--fd=7",
        "--readonly",
    ]
    with contextlib.suppress(FileNotFoundError):
        assert "--readonly" not in rust.argv(tmp_path, 7, readonly=False)
