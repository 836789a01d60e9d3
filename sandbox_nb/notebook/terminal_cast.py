"""Recordings in asciinema's format, version 2: a header line, then one JSON list a line for each event."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import time
from pathlib import Path


class Cast:
    """Writes what a terminal shows to a file that ``asciinema play`` and its web player read.

    Each event is written as it happens, so that the file is whole up to the last one whatever comes next.
    Every method raises OSError when that cannot be done, and that is the end of the recording.
    """

    def __init__(self, path: str | os.PathLike[str], rows: int, cols: int) -> None:
        self._file = Path(path).open("w", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed by close()
        self._start = time.monotonic()
        # Events are text, and a character may come in two pieces.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        header = {"version": 2, "width": cols, "height": rows, "timestamp": int(time.time())}
        self._line(header | {"env": {"TERM": "xterm-256color"}})

    def output(self, data: bytes) -> None:
        """The program wrote ``data``."""
        if text := self._decoder.decode(data):
            self._event("o", text)

    def resize(self, rows: int, cols: int) -> None:
        """The terminal has another size."""
        self._event("r", f"{cols}x{rows}")

    def close(self) -> None:
        """End the recording. Idempotent."""
        self._file.close()

    def _event(self, kind: str, text: str) -> None:
        self._line([round(time.monotonic() - self._start, 6), kind, text])

    def _line(self, value: object) -> None:
        if self._file.closed:
            return
        try:
            self._file.write(json.dumps(value, ensure_ascii=False) + "\n")
        except OSError:
            with contextlib.suppress(OSError):
                self._file.close()
            raise
