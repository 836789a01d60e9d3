"""The line of a magic as words, with the values of Python variables put in.

``{name}`` in a word becomes ``str`` of that variable's value, and stays one word, and no option, whatever is in
it: lines are split first. A value that is ``--`` separates all the same. Braces around anything else stay, as in
``awk '{print $1}'``; ``{{name}}`` is a literal ``{name}``. The text of a cell is never touched, for braces are the
shell's there; values go in by ``--env NAME={name}`` or ``--stdin name``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from sandbox_nb import grammar
from sandbox_nb.grammar import UsageError

_NAME = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")
# Where JSON begins: a list, or an object.
_JSON = re.compile(r"""\s(?=\[|\{\s*["}])""")


class Filled(str):
    """A word that begins with the value of a variable: no option, whatever the value is."""


class Value(Filled):
    """A word that is nothing but the value of a variable, ``value``, as text."""

    def __init__(self, value: Any) -> None:
        self.value = value


def split(line: str, variables: Mapping[str, Any]) -> list[str]:
    """The words of a line. Raises UsageError where quotes are not in pairs."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"%sandbox {line}: {error}; quotes come in pairs") from error
    return [_filled(word, variables) for word in words]


def split_json(line: str, variables: Mapping[str, Any]) -> list[str]:
    """The words of a line that may end with JSON, which is the last word as it is."""
    head, *rest = _JSON.split(line, maxsplit=1)
    return [*split(head, variables), *(text.strip() for text in rest)]


def escaped(words: Sequence[str]) -> str:
    """The line whose words are ``words``. Raises InvalidArgument for what takes more than a line."""
    return grammar.line([_NAME.sub(lambda found: f"{{{found[0]}}}", word) for word in words])


def _filled(word: str, variables: Mapping[str, Any]) -> str:
    def fill(found: re.Match[str]) -> str:
        if found[1] is not None:
            return f"{{{found[1]}}}"
        return str(variables[found[2]]) if found[2] in variables else found[0]

    first = _NAME.match(word)
    if first is None or first[2] not in variables:
        return _NAME.sub(fill, word)
    return Value(variables[first[2]]) if first[0] == word else Filled(_NAME.sub(fill, word))
