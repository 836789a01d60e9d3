"""Folders to copy, and what is the same about two of them."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from pathlib import Path

LONG = "n" * 255


def make(top: Path) -> Path:
    """A small tree with all that makes copying hard."""
    top.mkdir()
    (top / "empty folder").mkdir()
    (top / "empty file").touch()
    (top / "large").write_bytes(random.Random(1).randbytes(3_000_001))
    (top / "deep" / "er" / "est").mkdir(parents=True)
    (top / "deep" / "er" / "est" / "file").write_text("at the end")
    (top / LONG).write_text("a long name")
    (top / "new\nline and 'quotes' \\").write_text("a name of two lines")
    (top / "grüße").write_text("UTF-8")
    Path(os.fsdecode(bytes(top) + b"/\xff\xfe raw")).write_text("not UTF-8")
    (top / "link to a file").symlink_to("large")
    (top / "link to a folder").symlink_to("deep/er")
    (top / "dangling").symlink_to("/no/such/place")
    (top / "deep" / "same").hardlink_to(top / "large")
    (top / "deep" / "er" / "same").hardlink_to(top / "large")
    (top / "program").write_text("#!/bin/sh\n")
    (top / "program").chmod(0o755)
    (top / "secret").write_text("for nobody")
    (top / "secret").chmod(0o000 if os.geteuid() == 0 else 0o400)  # who is not root could not read it back
    (top / "shut").mkdir()
    (top / "shut" / "inside").write_text("written before the folder was shut")
    (top / "shut").chmod(0o555)
    for number, path in enumerate(sorted(everything(top), key=len)):
        os.utime(path, ns=(0, 1_600_000_000_000_000_001 + number * 1_000_000_007), follow_symlinks=False)
    os.utime(top / "empty file", ns=(0, -1_500_000_000))
    os.utime(top / "empty folder", ns=(0, 0))
    return top


def many(top: Path, files: int, size: int, seed: int = 1) -> Path:
    """A tree of ``files`` files of random size, ``size`` bytes together, a hundred to a folder."""
    source = random.Random(seed)
    weights = [source.random() for _ in range(files)]
    for number, weight in enumerate(weights):
        folder = top / f"{number // 1000}" / f"{number // 100}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file {number}").write_bytes(source.randbytes(int(size * weight / sum(weights))))
    return top


def everything(top: Path) -> list[bytes]:
    """All paths in a tree, and its top."""
    found = [bytes(top)]
    for folder, folders, files in os.walk(bytes(top)):
        found += [os.path.join(folder, name) for name in (*folders, *files)]
    return found


def fingerprint(top: Path, *, permissions: int = 0o7777) -> dict[bytes, tuple[object, ...]]:
    """What a copy must keep, by path: kind, permissions, time, content or target, which are one file."""
    found = {}
    first: dict[int, bytes] = {}
    for path in sorted(everything(top)):
        status = os.lstat(path)
        below = os.path.relpath(path, bytes(top))
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                content: bytes = hashlib.file_digest(file, "sha256").digest()
            same = first.setdefault(status.st_ino, below)
        else:
            content = os.readlink(path) if stat.S_ISLNK(status.st_mode) else b""
            same = below
        mode = 0 if stat.S_ISLNK(status.st_mode) else status.st_mode & permissions
        found[below] = (stat.S_IFMT(status.st_mode), mode, status.st_mtime_ns, content, same)
    return found
