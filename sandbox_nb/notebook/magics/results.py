"""How a command of a cell ended, and commands that run on behind it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from sandbox_nb.background import Call, Runner
from sandbox_nb.command import Command, describe
from sandbox_nb.deadline import check_timeout
from sandbox_nb.errors import DeadlineExceeded, ProcessFailed, SandboxError
from sandbox_nb.notebook.spool import Spool
from sandbox_nb.process import KILL_TIMEOUT, RawProcess

TITLE_WIDTH = 40
"""Characters of a command that its result is called by."""


class CellResult:
    """How a command ended: ``args``, ``returncode``, ``stdout``, ``stderr``, as in ``subprocess``.

    Long output is in files; ``files`` names them, and ``stdout`` and ``stderr`` read them when they are asked for.
    ``returncode`` is negative when a signal ended it, and None when it did not come to its end.
    """

    def __init__(
        self, args: Command, spools: dict[int, Spool], returncode: int | None, *, out_of_memory: bool = False
    ) -> None:
        self.args = args
        self.returncode = returncode
        self.out_of_memory = out_of_memory
        self._spools = spools

    @property
    def stdout(self) -> str:
        """What it wrote, as text; what is no UTF-8 is replaced."""
        return self._spools[1].text()

    @property
    def stderr(self) -> str:
        """Its errors, the same way."""
        return self._spools[2].text()

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that hold what is long, whole, until the kernel ends."""
        names = {"stdout": self._spools[1].file, "stderr": self._spools[2].file}
        return {name: file for name, file in names.items() if file is not None}

    def check_returncode(self) -> None:
        """Raise ProcessFailed unless the command ended with 0."""
        if self.returncode:
            raise ProcessFailed(self.returncode, self.args, self.stdout, self.stderr)

    def __repr__(self) -> str:
        sizes = f"{self._spools[1].size} + {self._spools[2].size} bytes of output"
        return f"<{_title(self.args)}: returncode {self.returncode}, {sizes}>"


class Job:
    """A command that runs on while the notebook does other things: what ``--bg`` returns."""

    def __init__(self, raw: RawProcess, runner: Runner, call: Call[None], spools: dict[int, Spool]) -> None:
        self._raw = raw
        self._runner = runner
        self._call = call
        self._spools = spools
        self._began = time.monotonic()

    @property
    def args(self) -> Command:
        """The command."""
        return self._raw.args

    @property
    def output(self) -> str:
        """What it wrote until now, as text."""
        return self._spools[1].text()

    @property
    def errors(self) -> str:
        """The errors it wrote until now, as text."""
        return self._spools[2].text()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._call.future.done()

    def wait(self, timeout: float | None = None) -> CellResult:
        """Wait for its end and return how it ended. An interrupt ends the wait, not the job.

        Raises DeadlineExceeded when ``timeout`` seconds pass first, ProcessTimedOut when the job's own time is
        over, and Unavailable when the machine is gone.
        """
        check_timeout(timeout)
        try:
            self._runner.result(self._call, None if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        except asyncio.CancelledError:
            pass  # it was stopped
        except TimeoutError:
            if self.running:
                raise DeadlineExceeded(f"{describe(self.args)} did not end within {timeout} s") from None
            raise
        return CellResult(self.args, self._spools, self._raw.returncode, out_of_memory=self._raw.out_of_memory)

    def stop(self) -> None:
        """End it and every process it started. Idempotent."""
        self._call.cancel()
        with contextlib.suppress(asyncio.CancelledError, SandboxError):
            self._runner.result(self._call)
        with contextlib.suppress(SandboxError):
            self._runner.wait(self._raw.wait(KILL_TIMEOUT))

    def __repr__(self) -> str:
        seconds = time.monotonic() - self._began
        state = f"running for {seconds:.0f} s" if self.running else f"ended with {self._raw.returncode}"
        return f"<job {_title(self.args)}: {state}; .wait(), .stop(), .output>"


def _title(command: Command) -> str:
    """The beginning of a command; of a cell, that of its text."""
    text = command[2] if list(command[:2]) == ["sh", "-c"] else describe(command)
    first = os.fsdecode(text).strip().partition("\n")[0]
    return f"{first[:TITLE_WIDTH]!r}{'…' if len(text) > len(first) + 1 or len(first) > TITLE_WIDTH else ''}"
