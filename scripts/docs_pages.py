"""What the documentation takes from the code: tables of options, help texts, protos.

A MkDocs hook (https://www.mkdocs.org/user-guide/configuration/#hooks). In a page, a line ``{{ NAME ARGUMENT }}``
is replaced by what the function of that name below returns.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

import sandbox_nb
from sandbox_nb import cli
from sandbox_nb.devices import NIC, Disk, Filesystem, UserNIC
from sandbox_nb.notebook.magics import SandboxMagics
from sandbox_nb.options import Options

ROOT = Path(sandbox_nb.__file__).parent
PLACE = re.compile(r"^\{\{ (\w+)(?: (\S+))? \}\}$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill the places of a page."""
    return PLACE.sub(lambda found: PAGES[found[1]](*filter(None, found.groups()[1:])), markdown)


def options() -> str:
    """Every option of a machine, its default and what it is for."""
    rows = ["| option | default | what it says |", "| --- | --- | --- |"]
    for option in dataclasses.fields(Options):
        beside = "arguments for the guest's agent" if option.name == "init_args" else "see below"
        text = option.metadata.get("help", beside)
        default = "" if option.default in (None, ()) else f"`{option.default!r}`"
        rows.append(f"| `{option.name}` | {default} | {text} |")
    return "\n".join(rows)


def device(name: str) -> str:
    """The fields of a kind of device."""
    kind: Any = {"Disk": Disk, "Filesystem": Filesystem, "NIC": NIC, "UserNIC": UserNIC}[name]
    rows = ["| field | default |", "| --- | --- |"]
    for field in dataclasses.fields(kind):
        default = "" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
        rows.append(f"| `{field.name}` | {default} |")
    return "\n".join(rows)


def command_line() -> str:
    """The help of every command of ``sandbox-nb``."""
    return _help_texts(cli._parser())


def magics() -> str:
    """The help of every command of ``%sandbox``."""
    return _help_texts(SandboxMagics(InteractiveShell.instance())._parser)


def public_names() -> str:
    """Every public name of the package, most important first."""
    return "\n\n".join(
        f"::: sandbox_nb.{room}.{name}" for room, names in sandbox_nb._ROOMS.items() for name in names
    )


def proto(name: str) -> str:
    """A service of the agent, as its proto describes it."""
    text = (ROOT / "guest" / "proto" / f"{name}.proto").read_text()
    return f"```protobuf\n{text.rstrip()}\n```"


def _help_texts(parser: argparse.ArgumentParser) -> str:
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return "\n\n".join(
        f"## {name}\n\n```text\n{sub.format_help().rstrip()}\n```" for name, sub in commands.choices.items()
    )


PAGES = {found.__name__: found for found in (options, device, command_line, magics, public_names, proto)}
