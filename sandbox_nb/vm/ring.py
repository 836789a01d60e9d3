"""The last bytes somebody wrote, within a bound."""

from __future__ import annotations


class Ring:
    """Keeps the last ``limit`` bytes fed to it."""

    def __init__(self, limit: int = 64 * 1024) -> None:
        self.limit = limit
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        """Add ``data``, forgetting the oldest bytes beyond the limit."""
        self._bytes += data
        if len(self._bytes) > self.limit:
            del self._bytes[: -self.limit]

    def __bytes__(self) -> bytes:
        return bytes(self._bytes)

    def tail(self, lines: int = 20) -> str:
        """The last ``lines`` lines as text, carriage returns removed, invalid UTF-8 replaced."""
        text = self._bytes.decode(errors="replace").replace("\r", "")
        return "\n".join(text.rstrip("\n").split("\n")[-lines:])
