"""``%sandbox attach``, ``detach``, ``devices``, ``forward`` and ``cp``: between a machine and its host."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from sandbox_nb import grammar, proxy
from sandbox_nb.blocking import Sandbox
from sandbox_nb.errors import NotFound
from sandbox_nb.grammar import Parser, UsageError
from sandbox_nb.notebook.cell_output import size_text
from sandbox_nb.notebook.magics.session import Session, open_forward
from sandbox_nb.notebook.magics.verbs import COMPLETE_ATTACHED, COMPLETE_PLACE, Verb, complete
from sandbox_nb.notebook.progress import ProgressLine

if TYPE_CHECKING:
    from sandbox_nb.hardware import Devices


def attach(session: Session, arguments: argparse.Namespace) -> None:
    """Attach a disk, a share or a network card to the running machine.

    Such as:
      %sandbox attach --share src=.,ro
      %sandbox attach --disk data=data.qcow2,size=2G,format=ext4,target=/data
    """
    found = session.find(arguments.name).attach(arguments.device)
    print(f"{found.name}: {found.kind}, {found.how}, {found.guest}")


def detach(session: Session, arguments: argparse.Namespace) -> None:
    """Detach a device, by the name that %sandbox devices shows."""
    session.find(arguments.name).detach(arguments.device)
    print(f"{arguments.device}: detached")


def devices(session: Session, arguments: argparse.Namespace) -> Devices:
    """Show the disks, shares and network cards that are attached."""
    return session.find(arguments.name).devices()


def forward(session: Session, arguments: argparse.Namespace) -> None:
    """Make a port of the guest one of this host; with no ports said, list those that are.

    The host listens on its loopback. The machine needs no network card for it.

    Such as:
      %sandbox forward 8080:80
      %sandbox forward 0:/run/app.sock
      %sandbox forward --close 8080
    """
    name = session.name(arguments.name)
    sandbox = session.find(arguments.name)
    if arguments.close is not None:
        open_one = session.forwards.get(name, {}).pop(arguments.close, None)
        if open_one is None:
            raise NotFound(f"port {arguments.close} is none that {name} forwards: %sandbox forward lists them")
        open_one.close()
        print(f"port {arguments.close}: closed")
    elif arguments.ports is None:
        for port, found in session.forwards.get(name, {}).items():
            if not found.closed:
                print(_forwarded(port, found.target))
    else:
        host, guest = arguments.ports
        port, made = open_forward(sandbox, host, guest)
        session.forwards.setdefault(name, {})[port] = made
        print(_forwarded(port, guest))


def cp(session: Session, arguments: argparse.Namespace) -> None:
    """Copy a file or folder into the guest, or out of it.

    A place in the guest is :PATH, or NAME:PATH. By the rules of cp -a: into the target when that is a folder.

    Such as:
      %sandbox cp data.csv :/root/
      %sandbox cp web:/var/log ./logs
    """
    source, target = (_place(session, text) for text in (arguments.source, arguments.target))
    if (source[0] is None) == (target[0] is None):
        raise UsageError("one of the two is in a guest, as :PATH or NAME:PATH, and one on this host")
    line = ProgressLine()

    def tell(size: int, files: int) -> None:
        if files:
            line(f"{_count(files, 'file')}, {size_text(size)}", 0, 0)

    if target[0] is not None:
        copied = target[0].copy_to(source[1], target[1], progress=tell)
    else:
        assert source[0] is not None
        copied = source[0].copy_from(source[1], target[1], progress=tell)
    counts = [_count(copied.files, "file"), _count(copied.folders, "folder"), size_text(copied.size)]
    left = f"; left out, being no files: {', '.join(copied.skipped)}" if copied.skipped else ""
    line.finish(f"{copied.path}: {', '.join(counts)}{left}")


def _place(session: Session, text: str) -> tuple[Sandbox | None, str]:
    """The sandbox that a place is in, None for the host, and the path there."""
    found = re.fullmatch(r"([A-Za-z0-9_-]*):(.*)", text, re.DOTALL)
    if found is None:
        return None, text
    return session.find(found[1] or None), found[2]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _forwarded(port: int, guest: int | str) -> str:
    return f"{proxy.url(port)} leads to {f'port {guest}' if isinstance(guest, int) else guest} of the guest"


def _detach_arguments(parser: Parser) -> None:
    action = parser.add_argument("device", metavar="DEVICE", help="a block id, a tag, or the name of a card")
    complete(action, COMPLETE_ATTACHED)


def _forward_arguments(parser: Parser) -> None:
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "ports",
        nargs="?",
        type=grammar.forward_type,
        metavar="HOST:GUEST",
        help="two ports (0: a free one), or a port and the path of a socket",
    )
    choice.add_argument("--close", type=int, metavar="PORT", help="stop forwarding a port of the host")


def _cp_arguments(parser: Parser) -> None:
    for name in ("source", "target"):
        complete(parser.add_argument(name, metavar=name.upper(), help="PATH, :PATH or NAME:PATH"), COMPLETE_PLACE)


VERBS = (
    Verb("cp", cp, _cp_arguments, named=False),
    Verb("attach", attach, grammar.add_devices),
    Verb("detach", detach, _detach_arguments),
    Verb("devices", devices),
    Verb("forward", forward, _forward_arguments),
)
