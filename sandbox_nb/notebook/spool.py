"""Where the output of a cell is kept: in memory while it is short, in a file when it is long."""

from __future__ import annotations

import atexit
import itertools
import threading
from pathlib import Path

from sandbox_nb import host, rundir
from sandbox_nb.errors import ResourceExhausted

IN_MEMORY = 80 * 1024
"""Bytes of a stream kept in memory. Not much more than a cell shows of it."""


class SpoolFolder:
    """Makes spools whose files are removed when the kernel ends, or by the next one if it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._numbers = itertools.count(1)

    def pair(self) -> dict[int, Spool]:
        """Spools for the standard output (1) and the standard error (2) of one command."""
        number = next(self._numbers)
        return {1: Spool(self, f"{number}-stdout"), 2: Spool(self, f"{number}-stderr")}

    def folder(self) -> Path:
        """The folder, made when it is first needed. On disk: run folders may be in memory."""
        with self._lock:
            if self._folder is None:
                parent = host.cache_dir() / "output"
                parent.mkdir(parents=True, exist_ok=True)
                self._folder = rundir.create(parent)
                atexit.register(self.remove)
            return self._folder

    def remove(self) -> None:
        """Remove the folder with all that is in it. Idempotent."""
        with self._lock:
            folder, self._folder = self._folder, None
            if folder is not None:
                atexit.unregister(self.remove)
                rundir.remove(folder)


class Spool:
    """What a command wrote to one of its streams. May be written and read in different threads."""

    def __init__(self, folder: SpoolFolder, name: str) -> None:
        self.size = 0
        self.file: Path | None = None
        """The file with all of it; None while it is short."""
        self._folder = folder
        self._name = name
        self._memory = bytearray()
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Add ``data``. Raises ResourceExhausted when the disk takes no more."""
        with self._lock:
            self._memory += data
            self.size += len(data)
            if self.file is not None or self.size > IN_MEMORY:
                self._flush()

    def read(self) -> bytes:
        """All that was written until now."""
        with self._lock:
            return bytes(self._memory) if self.file is None else self.file.read_bytes()

    def tail(self, size: int) -> bytes:
        """The last ``size`` bytes, or all where there are less."""
        with self._lock:
            if self.file is None:
                return bytes(self._memory[-size:])
            with self.file.open("rb") as file:
                file.seek(max(0, self.size - size))
                return file.read()

    def text(self) -> str:
        """All that was written until now, as text; what is no UTF-8 is replaced."""
        return self.read().decode(errors="replace")

    def _flush(self) -> None:
        try:
            if self.file is None:
                self.file = self._folder.folder() / self._name
            with self.file.open("ab") as file:
                file.write(self._memory)
        except OSError as error:
            raise ResourceExhausted(f"output cannot be kept in {self.file}: {error.strerror}") from error
        self._memory.clear()
