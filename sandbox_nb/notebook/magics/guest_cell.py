"""The program that runs a ``%%sandbox python`` cell. It goes to the guest as text, where it has only itself.

It reads ``{"code": …, "values": {name: …}, "wanted": [name, …]}`` from its standard input, runs the code with the
values as variables, and writes those that are wanted, as JSON, to the file that its argument names.
"""

from __future__ import annotations

import json
import linecache
import sys
import traceback
from pathlib import Path
from typing import Any

NAME = "<cell>"


def run(code: str, variables: dict[str, Any]) -> bool:
    """Run the cell; say whether it came to its end. A traceback begins in the cell, not here."""
    linecache.cache[NAME] = (len(code), None, code.splitlines(keepends=True), NAME)
    try:
        exec(compile(code, NAME, "exec"), variables)  # noqa: S102 - what it is for
    except SystemExit:
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
    variables = {"__name__": "__main__", **cell["values"]}
    if not run(cell["code"], variables):
        return 1
    if cell["wanted"]:
        Path(sys.argv[1]).write_text(collect(variables, cell["wanted"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
