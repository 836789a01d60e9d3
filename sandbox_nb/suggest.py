"""What somebody may have meant who typed a word that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to put behind an error message, or nothing: the only word that begins so, else the nearest."""
    names = list(known)
    longer = [name for name in names if word and name.startswith(word)]
    near = longer if len(longer) == 1 else difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""
