"""The line of a magic as words, with the values of Python variables put in.

``{name}`` in a word becomes ``str`` of that variable's value, and stays one word whatever is in it: lines are
split first. Braces around anything else stay, as in ``awk '{print $1}'``; ``{{name}}`` is a literal ``{name}``.
The text of a cell is never touched, for braces are the shell's there; values go in by ``--env NAME={name}`` or
``--stdin name``.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from sandbox_nb import grammar
from sandbox_nb.errors import InvalidArgument
from sandbox_nb.grammar import UsageError

_NAME = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")
# A list, an object, or at the end of the line the name of a value.
_JSON = re.compile(r"""\s(?=\[|\{\s*["}]|\{\w+\}\s*\Z)""")


def split(line: str, variables: Mapping[str, Any]) -> list[str]:
    """The words of a line. Raises UsageError where quotes are not in pairs."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"%sandbox {line}: {error}; quotes come in pairs") from error
    return [_filled(word, variables) for word in words]


def split_json(line: str, variables: Mapping[str, Any]) -> list[str]:
    """The words of a line that ends with JSON, which is the last word as it is, or the ``{name}`` of a value."""
    head, *rest = _JSON.split(line, maxsplit=1)
    words = split(head, variables)
    return [*words, *(_as_json(text.strip(), variables) for text in rest)]


def escaped(words: Sequence[str]) -> str:
    """The line whose words are ``words``. Raises InvalidArgument for what takes more than a line."""
    return grammar.line([_NAME.sub(lambda found: f"{{{found[0]}}}", word) for word in words])


def _filled(word: str, variables: Mapping[str, Any]) -> str:
    def fill(found: re.Match[str]) -> str:
        if found[1] is not None:
            return f"{{{found[1]}}}"
        return str(variables[found[2]]) if found[2] in variables else found[0]

    return _NAME.sub(fill, word)


def _as_json(text: str, variables: Mapping[str, Any]) -> str:
    found = _NAME.fullmatch(text)
    if found is None or found[2] is None or found[2] not in variables:
        return text
    try:
        return json.dumps(variables[found[2]])
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{text} cannot be JSON: {error}") from None
