"""Disk images before QEMU sees them: told apart, judged, made, and never followed to files nobody named."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_nb.devices import Disk, DiskFlags
from sandbox_nb.errors import FailedPrecondition, InvalidArgument, NotFound
from sandbox_nb.vm import disks, images

MIB = 1 << 20


def qemu_img(*arguments):
    done = subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout


def make(path, kind="qcow2", size="8M", *options):
    qemu_img("create", "-q", "-f", kind, *options, path, size)
    return path


@pytest.fixture
def content(tmp_path):
    """A raw image of 3 MiB of random bytes."""
    path = tmp_path / "content.raw"
    path.write_bytes(os.urandom(3 * MIB))
    return path


def converted(content, kind, *options):
    path = content.with_suffix(f".{kind}")
    qemu_img("convert", "-f", "raw", "-O", kind, *options, content, path)
    return path


def facts(path):
    with path.open("rb") as image:
        return images.read(image)


def prepare(path, flags=DiskFlags.NONE, **keywords):
    return disks.prepare(Disk("data", path, flags, **keywords))


def refused(path, *words, kind=InvalidArgument, **keywords):
    """The disk is refused with the words, and the folder is as it was."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(kind) as caught:
        prepare(path, **keywords)
    message = str(caught.value)
    assert "'data'" in message
    assert all(word in message for word in words), message
    assert sorted(path.parent.iterdir()) == before


# What an image is


def test_a_format_is_told_by_the_content_not_by_the_name(content):
    assert facts(content) == images.Facts("raw", 3 * MIB)
    for kind in ("qcow2", "vmdk"):
        image = converted(content, kind)
        image = image.rename(image.with_suffix(".img"))
        assert (facts(image).format, facts(image).virtual_size) == (kind, 3 * MIB)
        assert prepare(image).how == kind


@pytest.mark.parametrize(
    "subformat", ["monolithicSparse", "streamOptimized", "monolithicFlat", "twoGbMaxExtentSparse"]
)
def test_every_vmdk_is_read(tmp_path, content, subformat):
    image = converted(content, "vmdk", "-o", f"subformat={subformat}")
    found = facts(image)
    assert (found.format, found.virtual_size) == ("vmdk", 3 * MIB)
    parts = [extent.name for extent in found.extents]
    assert bool(parts) == (subformat in ("monolithicFlat", "twoGbMaxExtentSparse"))
    if parts:
        refused(image, parts[0], "extent", "backing=")
    assert prepare(image, DiskFlags.VMDK, backing=[tmp_path / name for name in parts]).how == "vmdk"


def test_flag_vmdk_asserts_it(content):
    assert prepare(converted(content, "vmdk"), DiskFlags.VMDK).how == "vmdk"
    refused(content, "is raw", "VMDK", flags=DiskFlags.VMDK)
    refused(converted(content, "qcow2"), "is qcow2", "VMDK", flags=DiskFlags.VMDK)


@pytest.mark.parametrize("kind", ["vdi", "vhdx", "qed", "vpc"])
def test_other_formats_are_no_raw_disks(tmp_path, kind):
    refused(make(tmp_path / "a", kind), "qemu-img convert")


@pytest.mark.parametrize(
    "options", [(), ("-o", "compat=0.10"), ("-o", "extended_l2=on"), ("-o", "cluster_size=512")]
)
def test_whether_a_qcow2_holds_data_is_known(tmp_path, content, options):
    assert not facts(make(tmp_path / "empty", "qcow2", "3M", *options)).allocated
    assert facts(converted(content, "qcow2", *options)).allocated


# Truncated


@pytest.mark.parametrize("options", [(), ("-c",), ("-o", "extended_l2=on")])
@pytest.mark.parametrize("kept", [4, 71, 103, 512, 65536, 200_000, 2 * MIB])
def test_a_truncated_qcow2_is_refused(content, options, kept):
    image = converted(content, "qcow2", *options)
    prepare(image)
    os.truncate(image, kept)
    refused(image, "truncated qcow2")


@pytest.mark.parametrize("subformat", ["monolithicSparse", "streamOptimized"])
@pytest.mark.parametrize("kept", [4, 100, 511, 4096, 65536, 2 * MIB])
def test_a_truncated_vmdk_is_refused(content, subformat, kept):
    image = converted(content, "vmdk", "-o", f"subformat={subformat}")
    prepare(image)
    os.truncate(image, kept)
    refused(image, "truncated VMDK")


def test_a_vmdk_with_a_truncated_extent_is_refused(tmp_path, content):
    image = converted(content, "vmdk", "-o", "subformat=monolithicFlat")
    extent = tmp_path / facts(image).extents[0].name
    prepare(image, backing=[extent])
    os.truncate(extent, MIB)
    refused(image, "truncated VMDK", extent.name, backing=[extent])
    image.write_bytes(image.read_bytes()[:40])
    refused(image, "truncated VMDK", backing=[extent])


# Broken


@pytest.mark.parametrize(
    ("kind", "offset", "field", "words"),
    [
        ("qcow2", 4, struct.pack(">I", 9), "a qcow of version 9 with clusters of 2^16 bytes, not a qcow2"),
        ("qcow2", 20, struct.pack(">I", 40), "with clusters of 2^40 bytes"),
        ("qcow2", 32, struct.pack(">I", 1), "an encrypted qcow2; qemu-img convert can decrypt it"),
        ("qcow2", 36, struct.pack(">I", 1 << 30), "a level 1 table of 1073741824 entries, more than QEMU takes"),
        ("qcow2", 72, struct.pack(">Q", 1 << 40), "unknown incompatible features 0x10000000000"),
        ("vmdk", 12, struct.pack("<Q", 1 << 42), "a broken VMDK: 67108864 grain tables"),
        ("vmdk", 20, struct.pack("<Q", 0), "a broken VMDK: grains of 0 sectors, tables of 512 entries"),
        ("vmdk", 44, struct.pack("<I", 1 << 20), "tables of 1048576 entries"),
        ("vmdk", 56, struct.pack("<q", -1), "a truncated VMDK: the footer is not there"),
    ],
)
def test_a_broken_header_is_refused_with_what_is_wrong(tmp_path, kind, offset, field, words):
    image = make(tmp_path / "a", kind)
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(field)
    refused(image, words)


@pytest.mark.parametrize(
    ("extents", "words"),
    [
        ('RW 2048 VMFSRDM "a"', "an extent of type VMFSRDM; qemu-img convert may read it"),
        ("", "a truncated VMDK: the descriptor names no extent"),
        ("#" * MIB, "a broken VMDK: the descriptor has no end"),
    ],
    ids=["type", "none", "endless"],
)
def test_a_broken_descriptor_is_refused_with_what_is_wrong(tmp_path, extents, words):
    image = tmp_path / "a.vmdk"
    image.write_text(f"# Disk DescriptorFile\n{extents}\n")
    refused(image, words)


@settings(deadline=None, max_examples=300)
@given(
    kind=st.sampled_from(["qcow2", "vmdk"]),
    changes=st.lists(st.tuples(st.integers(0, 120), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
)
def test_any_header_is_taken_or_refused_and_never_costs_much(tmp_path_factory, kind, changes):
    folder = tmp_path_factory.getbasetemp() / "headers"
    folder.mkdir(exist_ok=True)
    image = folder / kind
    if not image.exists():
        make(image, kind)
    header = bytearray(image.read_bytes())
    for offset, data in changes:
        header[offset : offset + len(data)] = data
    broken = folder / "broken"
    broken.write_bytes(header)
    with contextlib.suppress(InvalidArgument):
        prepare(broken)


# Files an image names


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(os.urandom(MIB))
    return path


def test_a_backing_file_is_not_opened_unless_listed(tmp_path, secret):
    image = make(tmp_path / "a.qcow2", "qcow2", "1M", "-b", secret, "-F", "raw")
    refused(image, "backing file", str(secret), "backing=")
    refused(image, "backing file", backing=[tmp_path / "other"])
    node = disks.blockdev(prepare(image, backing=[secret]), "n")
    assert node["backing"]["driver"] == "raw"
    assert node["backing"]["file"]["filename"] == str(secret)
    assert node["backing"]["read-only"]
    assert not node["read-only"]


def test_a_backing_file_is_found_beside_the_image(tmp_path, monkeypatch, secret):
    image = make(tmp_path / "a.qcow2", "qcow2", "1M", "-b", "secret", "-F", "raw")
    monkeypatch.chdir(tmp_path)
    assert prepare("a.qcow2", backing=["secret"]).layer.backing.path == secret
    refused(image, "secret")


def test_every_file_of_a_chain_is_asked_for(tmp_path):
    base, middle = make(tmp_path / "base", "raw"), tmp_path / "middle"
    make(middle, "qcow2", "8M", "-b", base, "-F", "raw")
    top = make(tmp_path / "top", "qcow2", "8M", "-b", middle, "-F", "qcow2")
    refused(top, "middle", backing=[base])
    refused(top, "base", backing=[middle])
    assert prepare(top, backing=[base, middle]).layer.backing.backing.path == base


@pytest.mark.parametrize(
    "name",
    ['json:{"driver":"file","filename":"SECRET"}', "file:SECRET", "nbd://127.0.0.1/x", "https://127.0.0.1/x"],
)
def test_a_name_that_is_more_than_a_path_is_never_followed(tmp_path, secret, name):
    """QEMU would. Nothing in ``backing`` allows it."""
    image = make(tmp_path / "a.qcow2", "qcow2", "1M")
    name = name.replace("SECRET", str(secret)).encode()
    with image.open("r+b") as file:
        file.seek(8)
        file.write(struct.pack(">QI", 4096, len(name)))
        file.seek(4096)
        file.write(name)
    refused(image, "backing file", name.decode()[:4], backing=[secret, tmp_path / name.decode()[:4]])


def test_a_chain_that_bites_its_tail_is_refused(tmp_path):
    image = make(tmp_path / "a", "qcow2")
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", image, "-F", "qcow2", image)
    refused(image, "backing file", backing=[image])


def test_an_external_data_file_is_not_opened_unless_listed(tmp_path):
    data = tmp_path / "data.raw"
    image = make(tmp_path / "a.qcow2", "qcow2", "1M", "-o", f"data_file={data}")
    refused(image, "data file", str(data))
    assert disks.blockdev(prepare(image, backing=[data]), "n")["data-file"]["filename"] == str(data)


def test_a_vmdk_opens_neither_extents_nor_parents_unless_listed(tmp_path, secret):
    text = f'# Disk DescriptorFile\nversion=1\nCID=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "{secret}" 0\n'
    image = tmp_path / "a.vmdk"
    image.write_text(text)
    refused(image, "extent", str(secret))
    image.write_text(text + 'parentFileNameHint="secret"\n')
    refused(image, "backing file", "secret", backing=[secret])
    child = make(tmp_path / "child.vmdk", "vmdk", "8M", "-b", make(tmp_path / "p.vmdk", "vmdk"), "-F", "vmdk")
    refused(child, "backing file", "p.vmdk")


def test_a_sparse_vmdk_of_no_size_is_its_descriptor(tmp_path, secret):
    """QEMU then takes the extents that the text inside names."""
    image = make(tmp_path / "a.vmdk", "vmdk")
    data = bytearray(image.read_bytes())
    data[12:20] = bytes(8)
    text = f'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "{secret}" 0\n'.encode()
    data[512 : 512 + 20 * 512] = text.ljust(20 * 512, b"\0")
    image.write_bytes(data)
    refused(image, "extent", str(secret))


def test_nothing_is_left_for_qemu_to_look_up(content):
    node = disks.blockdev(prepare(converted(content, "qcow2"), DiskFlags.READONLY), "n")
    assert node["backing"] is None
    assert node["node-name"] == "n"
    assert node["read-only"] is node["file"]["read-only"] is True
    assert node["file"]["auto-read-only"] is False
    assert node["file"]["locking"] == "on"
    assert "backing" not in disks.blockdev(prepare(content), "n")


# What is no disk


def test_a_missing_file_is_not_found(tmp_path):
    refused(tmp_path / "none", "is not there", kind=NotFound)
    refused(tmp_path, "folder")
    with pytest.raises(NotFound, match="folder"):
        prepare(tmp_path / "none" / "a", size="1M")


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    refused(tmp_path / "fifo", "no regular file")
    refused(Path("/dev/null"), "no regular file")
    (tmp_path / "empty").touch()
    refused(tmp_path / "empty", "0 bytes")


UNREADABLE = """
import os, sys
from sandbox_nb.devices import Disk, DiskFlags
from sandbox_nb.vm import disks
os.setresuid(65534, 65534, 65534)
for flags in (DiskFlags.NONE, DiskFlags.READONLY):
    try:
        print(disks.prepare(Disk("data", sys.argv[1], flags)).how)
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user, which root alone can")
def test_a_file_that_cannot_be_read_or_written_is_refused(tmp_path_factory):
    folder = Path("/tmp") / f"sandbox_nb-test-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        image = folder / "a.raw"
        image.write_bytes(bytes(MIB))
        image.chmod(0o600)
        told = [sys.executable, "-c", UNREADABLE, image]
        secret, same = subprocess.run(told, capture_output=True, text=True, check=True).stdout.splitlines()
        refusal = f"InvalidArgument disk 'data': {image} cannot be opened: Permission denied"
        assert (secret, same) == (refusal, refusal)
        image.chmod(0o644)
        writing, reading = subprocess.run(told, capture_output=True, text=True, check=True).stdout.splitlines()
        assert writing == f"{refusal}; read-only it can be (ro, DiskFlags.READONLY)"
        assert reading == "raw"
    finally:
        shutil.rmtree(folder)


# Made


def test_a_missing_image_is_made_sparse(tmp_path):
    path = tmp_path / "a.img"
    image = prepare(path, size="2G")
    assert (image.how, image.virtual_size) == ("qcow2", 2 << 30)
    assert path.stat().st_blocks * 512 < MIB
    assert json.loads(qemu_img("info", "--output=json", path))["virtual-size"] == 2 << 30
    assert list(tmp_path.iterdir()) == [path]
    image.discard()
    image.discard()
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_is_there_keeps_its_size_and_survives(tmp_path):
    path = tmp_path / "a.img"
    prepare(path, size="64M")
    prepare(path, size="64M").discard()
    assert path.exists()
    refused(path, "67108864", "size='1G'", size="1G")


def test_a_dangling_link_is_no_missing_image(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    refused(tmp_path / "a", "is not there", kind=NotFound, size="1M")


def holds_ext4(path, kind):
    raw = path.with_suffix(".check")
    qemu_img("convert", "-f", kind, "-O", "raw", path, raw)
    done = subprocess.run(["/usr/sbin/e2fsck", "-fn", raw], capture_output=True, check=False)
    raw.unlink()
    return done.returncode == 0


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_file_system_is_made_on_an_empty_image_and_undone(tmp_path, kind):
    path = make(tmp_path / "a.img", kind, "64M")
    before = path.read_bytes()
    image = prepare(path, format="ext4")
    assert image.how == kind
    assert holds_ext4(path, kind)
    assert path.stat().st_blocks * 512 < 16 * MIB
    assert list(tmp_path.iterdir()) == [path]
    image.discard()
    assert path.read_bytes() == before


def test_an_image_is_made_with_a_file_system_or_not_at_all(tmp_path):
    path = tmp_path / "a.img"
    prepare(path, size="64M", format="ext4")
    assert holds_ext4(path, "qcow2")
    refused(tmp_path / "b.img", "Not enough space", kind=FailedPrecondition, size="4K", format="ext4")


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_what_was_formatted_before_is_left_as_it_is(tmp_path, kind):
    """A notebook says the same each time it is run."""
    path = tmp_path / "disk.img"
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, path, "16M"], check=True)
    prepare(path, format="ext4")
    before = path.read_bytes()
    image = prepare(path, format="ext4")
    assert path.read_bytes() == before
    image.discard()
    assert path.read_bytes() == before


def test_data_is_never_formatted_away(tmp_path, content):
    before = content.read_bytes()
    refused(content, "holds other data", format="ext4")
    assert content.read_bytes() == before
    for kind in ("qcow2", "vmdk"):
        refused(converted(content, kind), "holds other data", format="ext4")
    base = make(tmp_path / "base", "raw")
    over = make(tmp_path / "over", "qcow2", "8M", "-b", base, "-F", "raw")
    refused(over, "holds other data", format="ext4", backing=[base])


def test_what_is_to_be_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(disks.making.shutil, "which", lambda name, path: None)
    refused(tmp_path / "a", "qemu-img", "qemu-utils", kind=NotFound, size="1M")


def test_an_image_that_held_data_once_is_not_taken_for_new(tmp_path):
    path = make(tmp_path / "a", "qcow2", "64M")
    os.truncate(path, 65 * MIB)
    refused(path, "held data once", format="ext4")


def test_only_who_asks_for_a_file_system_has_a_raw_image_read(tmp_path, monkeypatch):
    path = make(tmp_path / "a", "raw", "64M")
    monkeypatch.setattr(images, "holds_data", lambda *_: pytest.fail("it was read"))
    prepare(path)
