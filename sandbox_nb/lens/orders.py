"""QMP messages as crossings: commands, their answers with the name of the command, events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sandbox_nb.lens.crossings import Crossing

MAX_KEPT = 16 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """A message that passed."""

    time_ns: int
    sent: bool
    text: bytes
    size: int
    verb: str
    """The command that was sent, or is answered; empty for events."""

    @property
    def kept(self) -> int:
        """Bytes that it holds."""
        return len(self.text)


class Orders:
    """Which command each answer of one QMP session is for."""

    def __init__(self) -> None:
        self._verbs: dict[str, str] = {}

    def see(self, time_ns: int, sent: bool, text: bytes) -> Seen:
        """Take a message as it passes."""
        message = json.loads(text)
        verb = message.get("execute", "")
        if sent and "id" in message:
            self._verbs[message["id"]] = verb
        elif "id" in message:
            verb = self._verbs.pop(message["id"], "a command from before")
        return Seen(time_ns, sent, text if len(text) <= MAX_KEPT else b"", len(text), verb)


def crossing(seen: Seen) -> Crossing:
    """A message, decoded."""
    message: dict[str, Any] = json.loads(seen.text) if seen.text else {}
    what, detail = seen.verb or message.get("event", "message"), message.get("arguments", message.get("data", ""))
    if not seen.sent and seen.verb:
        what = f"{seen.verb} {'error' if 'error' in message else 'return'}"
        detail = message.get("error", message.get("return", ""))
    elif "event" in message:
        what = f"event {message['event']}"
    text = json.dumps(detail, ensure_ascii=False) if detail not in ("", {}) else ""
    if not seen.text:
        text = f"{seen.size} bytes, not kept"
    return Crossing(seen.time_ns, "qmp", seen.sent, what, "", seen.size, text)
