"""The writer of initrds, held against GNU cpio."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from sandbox_nb.guest import cpio, tree

pytestmark = pytest.mark.skipif(shutil.which("cpio") is None, reason="GNU cpio is not installed")

ENTRIES = [
    tree.directory("."),
    tree.directory("bin"),
    tree.directory("home", 0o700, owner=1000),
    tree.file("bin/tool", b"\x7fELF" + bytes(1001), 0o755),
    tree.file("empty", b""),
    tree.file("etc", "text without a directory before it\n"),
    tree.symlink("bin/sh", "tool"),
    *(tree.file(f"size{size}", bytes(size)) for size in range(9)),
]


def cpio_lists(archive: bytes) -> list[str]:
    command = ["cpio", "--list", "--verbose", "--numeric-uid-gid", "--quiet"]
    return subprocess.run(command, input=archive, capture_output=True, check=True).stdout.decode().splitlines()


def test_gnu_cpio_lists_what_was_put_in():
    lines = cpio_lists(cpio.archive(ENTRIES))
    names = [line.split(" 1970 ")[1] for line in lines]
    assert "bin/sh -> tool" in names
    assert [name.split(" -> ")[0] for name in names] == sorted(entry.path for entry in ENTRIES)
    home = next(line for line in lines if line.endswith(" home"))
    assert home.split()[:4] == ["drwx------", "2", "1000", "1000"]


def test_gnu_cpio_unpacks_the_same_content(tmp_path):
    rng = random.Random(2)
    files = {f"f{index}": rng.randbytes(rng.randrange(5000)) for index in range(50)}
    archive = cpio.archive(tree.file(name, data) for name, data in files.items())
    subprocess.run(["cpio", "-i", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_the_order_of_entries_does_not_matter():
    assert cpio.archive(ENTRIES) == cpio.archive(reversed(ENTRIES))


def test_a_directory_comes_before_what_is_in_it():
    names = [line.split(" 1970 ")[1] for line in cpio_lists(cpio.archive(reversed(ENTRIES)))]
    assert names.index("bin") < names.index("bin/tool")


def test_an_archive_ends_where_another_may_begin():
    assert len(cpio.archive(ENTRIES)) % 4 == 0


def test_content_may_lie_in_a_file(tmp_path):
    path: Path = tmp_path / "big"
    path.write_bytes(b"x" * 100_001)
    archive = cpio.archive([tree.Entry("big", 0o100644, path)])
    assert archive == cpio.archive([tree.file("big", b"x" * 100_001)])
