"""The writer of root file systems, held against erofs-utils."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess

import pytest

from sandbox_nb.errors import InvalidArgument
from sandbox_nb.guest import erofs, tree

pytestmark = pytest.mark.skipif(shutil.which("fsck.erofs") is None, reason="erofs-utils is not installed")

# Around the sizes at which a tail moves out of its inode's block, and a file takes one block more.
SIZES = (0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 100_000)


def unpacked(image, folder):
    subprocess.run(["fsck.erofs", f"--extract={folder}", image], check=True, capture_output=True)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_every_size_of_file_comes_back(tmp_path):
    rng = random.Random(3)
    files = {f"size{size}": rng.randbytes(size) for size in SIZES}
    erofs.write(tmp_path / "image", (tree.file(name, data) for name, data in files.items()))
    assert unpacked(tmp_path / "image", tmp_path / "out") == files


def test_a_directory_may_take_many_blocks(tmp_path):
    rng = random.Random(4)
    names = {f"d/{'n' * rng.randrange(1, 200)}{index}" for index in range(1500)}
    erofs.write(tmp_path / "image", (tree.file(name, name) for name in names))
    assert unpacked(tmp_path / "image", tmp_path / "out") == {name: name.encode() for name in names}


def test_links_modes_and_owners_are_kept(tmp_path):
    entries = [
        tree.symlink("short", "size0"),
        tree.symlink("long", "x" * 4090),
        tree.file("tool", "#!/bin/sh\n", 0o751),
        tree.directory("home/user", 0o700, owner=1000),
    ]
    erofs.write(tmp_path / "image", entries)
    subprocess.run(
        ["fsck.erofs", f"--extract={tmp_path / 'out'}", tmp_path / "image"], check=True, capture_output=True
    )
    assert os.readlink(tmp_path / "out/short") == "size0"
    assert os.readlink(tmp_path / "out/long") == "x" * 4090
    said = subprocess.run(
        ["dump.erofs", "--path=/home/user", tmp_path / "image"], check=True, capture_output=True, text=True
    ).stdout
    assert re.search(r"Uid: 1000 +Gid: 1000 +Access: 0700", said)
    said = subprocess.run(
        ["dump.erofs", "--path=/tool", tmp_path / "image"], check=True, capture_output=True, text=True
    ).stdout
    assert "Access: 0751" in said


def test_the_same_entries_make_the_same_bytes_in_any_order(tmp_path):
    entries = [tree.file(f"{index % 7}/{index}", str(index)) for index in range(100)]
    erofs.write(tmp_path / "one", entries)
    erofs.write(tmp_path / "two", reversed(entries))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_of_two_entries_with_one_path_the_later_counts(tmp_path):
    entries = [tree.file("a/x", "kept"), tree.file("b", "old"), tree.file("b", "new"), tree.directory("a", 0o711)]
    erofs.write(tmp_path / "image", entries)
    assert unpacked(tmp_path / "image", tmp_path / "out") == {"a/x": b"kept", "b": b"new"}


def test_a_folder_is_walked_without_its_sockets_and_pipes(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_text("text")
    (folder / "link").symlink_to("sub/file")
    os.mkfifo(folder / "pipe")
    erofs.write(tmp_path / "image", tree.walk(folder, keep_owners=False))
    assert unpacked(tmp_path / "image", tmp_path / "out") == {"sub/file": b"text"}
    assert sorted(os.listdir(tmp_path / "out")) == ["link", "sub"]


def test_a_file_that_shrinks_meanwhile_is_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(10_000))

    def entries():
        yield tree.Entry("file", 0o100644, path)
        yield tree.Entry("second", 0o100644, Shrinking(path))

    class Shrinking(type(path)):
        def open(self, *args, **kwargs):
            path.write_bytes(b"short")
            return super().open(*args, **kwargs)

    with pytest.raises(InvalidArgument, match="became shorter"):
        erofs.write(tmp_path / "image", entries())
