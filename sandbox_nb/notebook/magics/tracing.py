"""``%sandbox trace``: the protocol lens."""

from __future__ import annotations

import argparse

from sandbox_nb.errors import InvalidArgument, NotFound
from sandbox_nb.grammar import COMPLETE_HOST_PATH, Parser, UsageError
from sandbox_nb.lens.crossings import LAYERS, Crossings
from sandbox_nb.lens.recorder import Lens
from sandbox_nb.notebook.magics.session import Session
from sandbox_nb.notebook.magics.verbs import Verb, complete


def trace(session: Session, arguments: argparse.Namespace) -> Crossings | None:
    """Record, show and save what crosses between host and guest: calls, vsock packets, QMP messages.

    on begins afresh, off ends; show and save work during that and after. A file whose name ends with .jsonl gets
    a line of JSON for each, one with .pcapng the packets, for Wireshark.

    Such as:
      %sandbox trace on
      %sandbox trace show --layer ttrpc --match Process --last 20
      %sandbox trace save boot.pcapng
      %sandbox trace off
    """
    name = session.name(arguments.name)
    if (arguments.file is None) == (arguments.action == "save"):
        raise UsageError("%sandbox trace on, off or show; or %sandbox trace save FILE")
    which = {"layers": arguments.layer, "match": arguments.match, "last": arguments.last}
    match arguments.action:
        case "on":
            _begin(session, name)
        case "off":
            lens = _lens(session, name)
            lens.close()
            print(f"{name}: not traced any more; {len(lens.crossings())} crossings are kept")
        case "show":
            return _lens(session, name).crossings(**which)
        case "save":
            try:
                _lens(session, name).save(arguments.file, **which)
            except OSError as error:
                raise InvalidArgument(f"{arguments.file} cannot be written: {error.strerror}") from error
            print(f"{arguments.file}: saved")
    return None


def _begin(session: Session, name: str) -> None:
    sandbox = session.find(name)
    known = session.lenses.get(name)
    if known is not None:
        known.close()
    session.lenses[name] = lens = sandbox.trace()
    what = (
        "calls, packets and QMP messages"
        if lens.complete
        else "calls and QMP messages, no packets of the kernel's"
    )
    print(f"{name}: {what} are recorded; %sandbox trace show")


def _lens(session: Session, name: str) -> Lens:
    if name not in session.lenses:
        raise NotFound(f"{name} has not been traced: %sandbox trace on")
    return session.lenses[name]


def _arguments(parser: Parser) -> None:
    parser.add_argument("action", choices=("on", "off", "show", "save"), metavar="on|off|show|save")
    file = parser.add_argument("file", nargs="?", metavar="FILE", help="where to save: .jsonl or .pcapng")
    complete(file, COMPLETE_HOST_PATH)
    parser.add_argument("--layer", action="append", default=[], choices=LAYERS, help="only this; may be repeated")
    parser.add_argument("--match", default="", metavar="TEXT", help="only what has this text")
    parser.add_argument("--last", type=int, metavar="N", help="only the last N of them")


VERBS = (Verb("trace", trace, _arguments),)
