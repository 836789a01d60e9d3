"""SandboxPool: a function over many items, each in a fresh machine that is gone afterwards.

It follows ``concurrent.futures``: ``submit`` returns a Future, ``map`` yields results in the order of the items.
But whoever is interrupted does not wait: the machines at work are stopped then.

For more than one computer, hand the same function to ``dask.distributed``, with :func:`in_fresh_sandbox` around
it; there is no cluster code here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from sandbox_nb.background import run_blocking
from sandbox_nb.blocking import Sandbox
from sandbox_nb.command import Command
from sandbox_nb.errors import InvalidArgument, Stopped
from sandbox_nb.host import Progress, check_progress
from sandbox_nb.options import Option, Options
from sandbox_nb.run import Completed
from sandbox_nb.together import together

__all__ = ["SandboxPool", "in_fresh_sandbox"]

T = TypeVar("T")
P = ParamSpec("P")


def in_fresh_sandbox(
    function: Callable[Concatenate[Sandbox, P], T], /, *options: Option, **keywords: Any
) -> Callable[P, T]:
    """Return ``function`` as one that starts a machine, passes it in front of the arguments, and stops it.

    What it returns can be pickled when ``function`` and the options can, so it travels to other processes::

        client.map(in_fresh_sandbox(grade, memory=512, cpu=1), submissions)
    """
    return functools.partial(_call_in_fresh_sandbox, function, options, keywords)


def _call_in_fresh_sandbox(
    function: Callable[..., T],
    options: tuple[Option, ...],
    keywords: dict[str, Any],
    *arguments: Any,
    **named: Any,
) -> T:
    return _Work(function, options, keywords)(*arguments, **named)


class _Work(Generic[T]):
    """A function to be called with a fresh machine, which another thread may end."""

    def __init__(self, function: Callable[..., T], options: tuple[Option, ...], keywords: dict[str, Any]) -> None:
        self._function = function
        self._options = options
        self._keywords = keywords
        self._sandbox = Sandbox("pool")
        self._wanted = True

    def __call__(self, *arguments: Any, **named: Any) -> T:
        with self._sandbox as sandbox:
            sandbox.start(*self._options, **self._keywords)
            if not self._wanted:  # since before there was a start to take back
                raise Stopped(f"{sandbox.name} was stopped")
            return self._function(sandbox, *arguments, **named)

    async def end(self) -> None:
        """Stop the machine, or take its start back.

        The function's calls to it that are under way raise Stopped, later ones FailedPrecondition.
        """
        self._wanted = False
        await self._sandbox.asynchronous.close()


class SandboxPool(Executor):
    """Up to ``size`` machines at once, one for each item, with the options given.

    ::

        with SandboxPool(4, memory=512, cpu=1) as pool:
            for result in pool.map(lambda sb, text: sb.run("wc -w", input=text).stdout, texts):
                print(result)
    """

    def __init__(self, size: int, *options: Option, **keywords: Any) -> None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise InvalidArgument(f"size={size!r}: a pool needs at least one machine")
        Options().applying(options, keywords)  # wrong options are told here, not once for each item
        self._options = options
        self._keywords = keywords
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="sandbox-pool")
        self._works: dict[Future[Any], _Work[Any]] = {}

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> Future[T]:
        """Call ``function(sandbox, *arguments, **named)`` with a fresh machine; return its Future."""
        work = _Work(function, self._options, self._keywords)
        future = self._threads.submit(work, *arguments, **named)
        self._works[future] = work
        future.add_done_callback(self._works.pop)
        return future

    def results(
        self, function: Callable[..., T], items: Iterable[Any], *, progress: Progress | None = None
    ) -> list[T | Exception]:
        """Call ``function(sandbox, item)`` for each item; return what each returned, or raised, in order.

        Unlike ``map``, one failure hides no other result. ``progress`` hears of every item that is done. An
        interrupt stops the machines that are at work on the items.
        """
        check_progress(progress)
        futures = [self.submit(function, item) for item in items]
        try:
            for done, _ in enumerate(as_completed(futures), start=1):
                if progress is not None:
                    progress("items", done, len(futures))
            return [_outcome(future) for future in futures]
        finally:  # an interrupt: nobody else waits for these
            self._drop(futures)

    def run(self, commands: Iterable[Command], **keywords: Any) -> Iterator[Completed[Any]]:
        """Run each command in a machine of its own; yield how each ended, in order. Keywords as for ``run``."""
        if isinstance(commands, (str, bytes)) or not isinstance(commands, Iterable):
            meant = f", as [{commands!r}]" if isinstance(commands, str) else ""
            raise InvalidArgument(f"commands={commands!r}: a list of commands is needed{meant}")
        return self.map(lambda sandbox, command: sandbox.run(command, **keywords), commands)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more; with ``cancel_futures`` drop what has not begun. An interrupt stops the machines."""
        try:
            self._threads.shutdown(wait, cancel_futures=cancel_futures)
        except BaseException:
            self._drop(list(self._works))
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Wait for all that was submitted; but stop it when the block is left by an interrupt or its like."""
        if kind is not None and not issubclass(kind, Exception):
            self._drop(list(self._works))
        return super().__exit__(kind, error, trace)

    def _drop(self, futures: Sequence[Future[Any]]) -> None:
        """Let none of these begin, and stop the machines of those that have."""
        begun = [future for future in futures if not future.cancel()]
        works = [work for future in begun if (work := self._works.get(future)) is not None]
        if works:
            run_blocking(together(*(work.end() for work in works)))


def _outcome(future: Future[Any]) -> Any:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return error
    raise error
