"""What a notebook has: sandboxes by name, one of them the current, and its variables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from sandbox_nb.background import BACKGROUND
from sandbox_nb.blocking import Sandbox
from sandbox_nb.errors import FailedPrecondition, InvalidArgument, NotFound
from sandbox_nb.forward import Forward
from sandbox_nb.lens.recorder import Lens
from sandbox_nb.life import State
from sandbox_nb.notebook.nested_loop import LoopRunner
from sandbox_nb.notebook.spool import SpoolFolder
from sandbox_nb.options import Options
from sandbox_nb.sandbox import AsyncSandbox
from sandbox_nb.suggest import did_you_mean

DEFAULT_NAME = "sandbox"

UNDER_WAY = (State.STARTING, State.RUNNING)
"""What a machine is that is there, or soon will be: another may not take its name."""


class Session:
    """The state of the magics in one notebook.

    ``defaults`` makes the options a machine has before flags and files say more.
    """

    def __init__(self, shell: InteractiveShell, defaults: Callable[[], Options]) -> None:
        self.shell = shell
        self.defaults = defaults
        self.sandboxes: dict[str, Sandbox] = {}
        self.current = DEFAULT_NAME
        self.spools = SpoolFolder()
        self.forwards: dict[str, dict[int, Forward]] = {}
        """The ports of this host that lead to a sandbox, by its name. All are closed with its machine."""
        self.lenses: dict[str, Lens] = {}
        """The latest lens on each machine that was traced, by name."""
        self._lent: set[str] = set()

    # Sandboxes

    def name(self, said: str | None) -> str:
        """The name that is meant: the one said, the current one, or that of the only sandbox there is."""
        if said is not None:
            return said
        if self.current not in self.sandboxes and len(self.sandboxes) == 1:
            return next(iter(self.sandboxes))
        return self.current

    def find(self, said: str | None) -> Sandbox:
        """The sandbox that is meant. Raises NotFound."""
        name = self.name(said)
        sandbox = self.sandboxes.get(name)
        if sandbox is None:
            if said is None and self.sandboxes:
                raise NotFound(f"which sandbox? --name {' or '.join(self.sandboxes)}, or %sandbox use NAME")
            option = "" if name == DEFAULT_NAME else f" --name {name}"
            guess = did_you_mean(name, self.sandboxes)
            raise NotFound(f"there is no sandbox {name!r}; %sandbox start{option} makes one{guess}")
        return sandbox

    def use(self, name: str) -> Sandbox:
        """Make a sandbox the current one, by its name or that of the variable that holds it.

        Raises NotFound, or FailedPrecondition for an AsyncSandbox that was not started.
        """
        if name not in self.sandboxes:
            self.sandboxes[name] = self._borrow(name)
            self._lent.add(name)
        self.current = name
        return self.sandboxes[name]

    def forget(self, name: str) -> None:
        """Take a sandbox from the list. It stays the current one if it is: another may take its place."""
        del self.sandboxes[name]
        self.forwards.pop(name, None)
        self._lent.discard(name)

    def stop(self, name: str) -> None:
        """Stop a sandbox and take it from the list, also when the stop fails. Raises NotFound."""
        sandbox = self.find(name)
        self.forget(name)
        if self.current == name:
            self.current = DEFAULT_NAME
        sandbox.close()

    def close(self) -> None:
        """Stop every machine started here, and remove what was kept. Machines of the user's own go on."""
        own = [sandbox for name, sandbox in self.sandboxes.items() if name not in self._lent]
        self.sandboxes.clear()
        self.lenses.clear()
        with contextlib.ExitStack() as ends:  # one that will not stop keeps no other up
            ends.callback(self.spools.remove)
            for sandbox in own:
                ends.callback(sandbox.close)

    def _borrow(self, name: str) -> Sandbox:
        value = self.shell.user_ns.get(name)
        if isinstance(value, Sandbox):
            return value
        if not isinstance(value, AsyncSandbox):
            guess = did_you_mean(name, [*self.sandboxes, *self.holders()])
            raise NotFound(f"{name!r} is neither a sandbox nor a variable that holds one{guess}")
        if value.loop is None:
            raise FailedPrecondition(f"{name} has not been started: await {name}.start()")
        if value.loop is BACKGROUND.loop():
            return Sandbox.over(value, BACKGROUND)
        return Sandbox.over(value, LoopRunner(value.loop))

    # Variables

    def holders(self) -> list[str]:
        """The variables that hold a sandbox."""
        values = self.shell.user_ns
        return [name for name in self.variables() if isinstance(values[name], (Sandbox, AsyncSandbox))]

    def variables(self) -> list[str]:
        """The user's variables, without what IPython put there."""
        hidden = self.shell.user_ns_hidden
        return [name for name in self.shell.user_ns if name not in hidden and not name.startswith("_")]

    def value(self, name: str) -> Any:
        """The value of a variable. Raises InvalidArgument."""
        if name not in self.shell.user_ns:
            guess = did_you_mean(name, self.variables())
            raise InvalidArgument(f"there is no variable {name!r}{guess}")
        return self.shell.user_ns[name]

    def bind(self, name: str, value: Any) -> None:
        """Set a variable."""
        self.shell.user_ns[name] = value


def open_forward(sandbox: Sandbox, host_port: int, guest: int | str) -> tuple[int, Forward]:
    """Forward a port of this host (0: a free one) to the guest's; return its number too. Raises AlreadyExists."""
    made = sandbox.forward(host_port, guest)
    assert made.port is not None
    return made.port, made
