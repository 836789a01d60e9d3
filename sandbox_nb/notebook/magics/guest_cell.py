"""The program that runs a ``%%sandbox python`` cell. It goes to the guest as text, where it has only itself.

It reads ``{"code": …, "values": {name: …}, "wanted": [name, …]}`` from its standard input, runs the code with the
values as variables of a ``__main__`` of its own, and writes those that are wanted, as JSON, to the file that its
argument names.
"""

from __future__ import annotations

import json
import linecache
import sys
import traceback
import types
from pathlib import Path
from typing import Any

NAME = "<cell>"


def run(code: str, variables: dict[str, Any]) -> bool:
    """Run the cell; say whether it came to a good end. A traceback begins in the cell, not here.

    Raises SystemExit where the cell ends with an exit status other than 0.
    """
    linecache.cache[NAME] = (len(code), None, code.splitlines(keepends=True), NAME)
    try:
        exec(compile(code, NAME, "exec", dont_inherit=True), variables)  # noqa: S102 - what it is for
    except SystemExit as error:
        if error.code not in (None, 0):
            raise
    except BaseException as error:
        traceback.print_exception(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))
        return False
    return True


def collect(variables: dict[str, Any], wanted: list[str]) -> str:
    """The values that are wanted as JSON; ends the program for one that cannot be had."""
    for name in wanted:
        if name not in variables:
            sys.exit(f"--out {name}: the cell does not set it")
        try:
            json.dumps(variables[name])
        except (TypeError, ValueError) as error:
            sys.exit(f"--out {name}: {error}; values cross as JSON")
    return json.dumps({name: variables[name] for name in wanted})


def main() -> int:
    """Do all of it, and return an exit status."""
    cell = json.load(sys.stdin)
    # What pickles or describes a class or function of the cell looks for it there, by its name.
    sys.modules["__main__"] = module = types.ModuleType("__main__")
    variables = vars(module)
    variables.update(cell["values"])
    if not run(cell["code"], variables):
        return 1
    if cell["wanted"]:
        Path(sys.argv[1]).write_text(collect(variables, cell["wanted"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
