"""BaseSandbox: what the host knows of a sandbox, as AsyncSandbox and Sandbox both say it."""

from __future__ import annotations

from pathlib import Path

from sandbox_nb.boot import Boot
from sandbox_nb.errors import Unavailable
from sandbox_nb.life import State
from sandbox_nb.options import Options
from sandbox_nb.portrait import Portrait
from sandbox_nb.services import Services

__all__ = ["BaseSandbox"]


class BaseSandbox:
    """What can be said of a sandbox without asking its guest: in any thread, and mostly in any state."""

    def _known(self) -> Services:
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Its name, which is also the guest's host name."""
        return self._known().life.name

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._known().life.state

    @property
    def failure(self) -> Unavailable | None:
        """Why the machine failed, or was stopped for one of its limits."""
        return self._known().life.failure

    @property
    def options(self) -> Options:
        """What it was last started with."""
        return self._known().life.options

    @property
    def boot(self) -> Boot:
        """How the machine came up. Raises FailedPrecondition when there is none."""
        return self._known().life.started().boot

    @property
    def state_dir(self) -> Path:
        """The folder of the logs. Raises FailedPrecondition when there is no machine."""
        return self._known().life.started().state_dir

    @property
    def console(self) -> str:
        """The last lines of the guest's console."""
        return self._known().life.console

    def portrait(self) -> Portrait:
        """What the host knows of the machine now, for people."""
        known = self._known()
        return Portrait.of(known.life, known.forwards)

    def _repr_html_(self) -> str:
        return self.portrait()._repr_html_()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.state.value}>"
