"""Output kept in memory while it is short, and in a file when it is long."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sandbox_nb import ResourceExhausted, host
from sandbox_nb.notebook.spool import IN_MEMORY, SpoolFolder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "cache_dir", lambda: tmp_path)
    folder = SpoolFolder()
    yield folder
    folder.remove()
    assert list((tmp_path / "output").iterdir() if (tmp_path / "output").exists() else ()) == []


def test_what_is_short_makes_no_file(folder, tmp_path):
    spool = folder.pair()[1]
    spool.write(b"a" * IN_MEMORY)
    assert spool.file is None
    assert (spool.read(), spool.size) == (b"a" * IN_MEMORY, IN_MEMORY)
    assert list(tmp_path.iterdir()) == []


def test_what_is_long_is_whole_in_its_file(folder):
    spools = folder.pair()
    data = random.Random(1).randbytes(1_000_000)
    for start in range(0, len(data), 777):
        spools[1].write(data[start : start + 777])
    spools[2].write(b"short")
    assert spools[1].file.read_bytes() == spools[1].read() == data
    assert spools[1].tail(1000) == data[-1000:]
    assert (spools[2].file, spools[2].tail(1000)) == (None, b"short")


def test_each_command_has_files_of_its_own(folder):
    first, second = folder.pair()[1], folder.pair()[1]
    for spool in (first, second):
        spool.write(b"x" * (IN_MEMORY + 1))
    assert first.file != second.file


def test_text_that_is_no_utf8_is_replaced(folder):
    spool = folder.pair()[1]
    spool.write(b"a\xffb")
    assert spool.text() == "a\ufffdb"


def test_a_full_disk_is_said_with_the_file(folder, monkeypatch):
    monkeypatch.setattr(type(folder), "folder", lambda self: Path("/dev/full/no"))
    with pytest.raises(ResourceExhausted, match="/dev/full/no"):
        folder.pair()[1].write(b"x" * (IN_MEMORY + 1))
