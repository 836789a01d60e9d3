"""How what a page sends finds its way in the kernel."""

from __future__ import annotations

from typing import Any


def route_by_sender(comm: Any) -> None:
    """Have what a page sends handled in the subshell it names, as every ipykernel does but 7.4.

    That one hands messages of a page to the subshell which last sent on the comm. Ours sends from threads, for
    which that is the main shell: while a cell runs, keys would wait for its end. (ipykernel 7.4.0, comm/comm.py)
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, subshell: subshell


def route_all_by_sender(widget: Any) -> None:
    """The same for a widget of ipywidgets and all that is in it."""
    route_by_sender(widget.comm)
    for child in getattr(widget, "children", ()):
        route_all_by_sender(child)
