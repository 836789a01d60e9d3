"""Docstrings as the site shows them: an example's ``::`` is for readers of the source, Markdown wants a colon."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Colons(griffe.Extension):
    """A Griffe extension; mkdocstrings loads it."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Mend the docstring of everything that has one."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"::$", ":", obj.docstring.value, flags=re.MULTILINE)
