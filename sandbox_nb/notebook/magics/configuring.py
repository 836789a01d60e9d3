"""``%sandbox config``: the configuration panel."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sandbox_nb import grammar
from sandbox_nb.blocking import Sandbox
from sandbox_nb.errors import AlreadyExists
from sandbox_nb.grammar import Parser
from sandbox_nb.notebook.magics.session import UNDER_WAY, Session
from sandbox_nb.notebook.magics.verbs import Verb

if TYPE_CHECKING:
    from sandbox_nb.notebook.panel import SandboxPanel


def config(session: Session, arguments: argparse.Namespace) -> SandboxPanel:
    """Show a form for every option of a machine, which starts, changes and stops it.

    It begins with the options said, on top of the settings; for a machine that runs, with what it has.

    Such as:
      %sandbox config
      %sandbox config --name web --config web.toml
    """
    from sandbox_nb.notebook.panel import SandboxPanel

    name = session.name(arguments.name)
    options = grammar.machine_options(arguments, session.defaults())
    sandbox = session.sandboxes.get(name) or Sandbox(name)

    def before_start(sandbox: Sandbox) -> None:
        known = session.sandboxes.get(name)
        if known not in (None, sandbox) and known.state in UNDER_WAY:
            raise AlreadyExists(f"{name} runs already, started elsewhere: stop it first, or use another --name")
        session.sandboxes[name] = sandbox

    return SandboxPanel(sandbox, options=options, before_start=before_start)


def _arguments(parser: Parser) -> None:
    parser.usage = "%(prog)s [OPTION]..."
    grammar.add_machine_options(parser)


VERBS = (Verb("config", config, _arguments),)
