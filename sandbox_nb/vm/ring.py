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
        return "\n".join(self._lines()[-lines:])

    def last_words(self, lines: int = 20) -> str:
        """What a kernel says when it dies, from its panic message on; else the tail."""
        text = self._lines()
        panics = [number for number, line in enumerate(text) if "Kernel panic" in line]
        return "\n".join(text[panics[0] :][:lines] if panics else text[-lines:])

    def _lines(self) -> list[str]:
        return self._bytes.decode(errors="replace").replace("\r", "").rstrip("\n").split("\n")
