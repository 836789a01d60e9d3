"""The first bytes somebody wrote, in a file, within a bound."""

from __future__ import annotations

import contextlib
from typing import IO

FILE_LIMIT = 16 * 1024 * 1024
"""Bytes of a log kept on disk. A guest can write without end, and have QEMU write; a disk is not without end."""


class LogFile:
    """Writes the first FILE_LIMIT bytes to ``file``, and no more."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._room = FILE_LIMIT

    def write(self, data: bytes) -> None:
        """Add ``data``, or what of it there is room for."""
        if self._room > 0:
            # A full disk must not take the machine down with it; a ring still has the end.
            with contextlib.suppress(OSError):
                self._file.write(data[: self._room])
            self._room -= len(data)

    def close(self) -> None:
        """Close the file. Idempotent."""
        with contextlib.suppress(OSError):
            self._file.close()
