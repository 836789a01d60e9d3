"""Processes of the host that work for a sandbox: started under the guard, watched, ended and reaped.

The guard (a small static binary, built with the agent) watches a pidfd of the owner and kills what it started
when the owner is gone, however it went. The kernel's own parent-death signal does not serve: it fires when
the *thread* that spawned the child ends, and threads come and go in a notebook.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from sandbox_nb.errors import CapReached, Killed, NotFound, Unavailable, from_os_error
from sandbox_nb.vm.caps import UNCONFINED, Confinement
from sandbox_nb.vm.log import LogFile
from sandbox_nb.vm.ring import Ring
from sandbox_nb.vm.users import User

logger = logging.getLogger(__name__)

_READ_SIZE = 16 * 1024


_KILLED = {128 + number for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
"""How a process ends that somebody else wanted to. What crashes gets other signals."""


class Child:
    """A running process. Belongs to the event loop in which it was spawned.

    ``log`` holds the last it wrote to its standard output and error; the first of both also goes to ``log_file``
    when one was given.
    """

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        log_file: IO[bytes] | None,
        confinement: Confinement,
    ) -> None:
        self.name = name
        self._confinement = confinement
        self.log = Ring()
        self._process = process
        self._log_file = None if log_file is None else LogFile(log_file)
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._reap)
        assert process.stdout is not None
        self._output = process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._loop.add_reader(self._output, self._read_output)

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str | Path],
        *,
        name: str,
        guard: Path,
        pass_fds: Sequence[int] = (),
        log_file: IO[bytes] | None = None,
        user: User | None = None,
        readonly: Path | None = None,
        confinement: Confinement = UNCONFINED,
    ) -> Child:
        """Start ``argv`` under ``guard``, handing it ``pass_fds`` beside the standard three.

        Root may start it as another ``user``, and so that it sees a folder ``readonly``. ``confinement`` holds it
        to the caps of the machine it works for.

        Raises NotFound when the program is not there, ResourceExhausted when descriptors, processes or memory are
        short, FailedPrecondition when it cannot be started for another reason.
        """
        flags = [] if user is None else ["--uid", str(user.uid), "--gid", str(user.gid)]
        flags += [] if readonly is None else ["--readonly", str(readonly)]
        flags += confinement.guard_flags
        try:
            with _own_pidfd() as owner:
                process = subprocess.Popen(
                    [*confinement.prefix, str(guard), str(owner), *flags, "--", *map(str, argv)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=(*pass_fds, owner),
                    bufsize=0,
                )
            with _ended_on_failure(process):
                child = cls(name, process, log_file, confinement)
        except FileNotFoundError as error:
            raise NotFound(f"{error.filename} is not there: {name} cannot be started") from error
        except OSError as error:
            raise from_os_error(error, f"{name} cannot be started") from error
        logger.debug("%s is process %d under the guard: %s", name, process.pid, argv)
        return child

    @property
    def pid(self) -> int:
        """Process id of the guard, which ends as the process does."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status once it has ended; 128 + n when signal n ended it."""
        return self._exited.result() if self._exited.done() else None

    async def wait(self) -> int:
        """Wait for its end and return the exit status. May be cancelled and called again."""
        return await asyncio.shield(self._exited)

    async def end(self, why: str, *, told_to: bool = False) -> Unavailable:
        """The error for its end, which ``why`` is about.

        CapReached when a cap of its machine ended it; Killed when somebody else did, or has ``told_to`` end.
        """
        if cap := await self._confinement.reached(self.log.tail(20)):
            return CapReached(f"{cap}\n{why}")
        return Killed(why) if told_to or self.returncode in _KILLED else Unavailable(why)

    async def stop(self, *, grace: float = 2.0) -> int:
        """End it: politely, after ``grace`` seconds by force. Returns its exit status. Idempotent."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(grace):
                    await self.wait()
            except TimeoutError:
                logger.warning("%s did not end within %g s and is killed", self.name, grace)
                self.kill()
        return await self.wait()

    def kill(self) -> None:
        """End it by force: the guard takes the whole process group with it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = self._process.wait()
        self._drain_output()
        self._exited.set_result(status if status >= 0 else 128 - status)

    def _read_output(self) -> None:
        data = self._output.read(_READ_SIZE)
        if data == b"":
            self._close_output()
        elif data:
            self._keep(data)

    def _drain_output(self) -> None:
        while not self._output.closed and (data := self._output.read(_READ_SIZE)):
            self._keep(data)
        self._close_output()

    def _keep(self, data: bytes) -> None:
        self.log.feed(data)
        if self._log_file is not None:
            self._log_file.write(data)

    def _close_output(self) -> None:
        if not self._output.closed:
            self._loop.remove_reader(self._output)
            self._output.close()
            if self._log_file is not None:
                self._log_file.close()


@contextlib.contextmanager
def _ended_on_failure(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process, and close what is ours of it, when the block fails: nobody watches it then."""
    try:
        yield
    except BaseException:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        raise


@contextlib.contextmanager
def _own_pidfd() -> Iterator[int]:
    fd = os.pidfd_open(os.getpid())
    try:
        yield fd
    finally:
        os.close(fd)
