"""SandboxPool: a function over many items, each in a fresh machine that is gone afterwards.

It follows ``concurrent.futures``: ``submit`` returns a Future, ``map`` yields results in the order of the items.
For more than one computer, hand the same function to ``dask.distributed``, with :func:`in_fresh_sandbox` around
it; there is no cluster code here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from typing import Any, Concatenate, ParamSpec, TypeVar

from sandbox_nb.blocking import Sandbox
from sandbox_nb.command import Command
from sandbox_nb.errors import InvalidArgument
from sandbox_nb.host import Progress
from sandbox_nb.options import Option, Options
from sandbox_nb.run import Completed

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
    with Sandbox("pool") as sandbox:
        sandbox.start(*options, **keywords)
        return function(sandbox, *arguments, **named)


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

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> Future[T]:
        """Call ``function(sandbox, *arguments, **named)`` with a fresh machine; return its Future."""
        call = in_fresh_sandbox(function, *self._options, **self._keywords)
        return self._threads.submit(call, *arguments, **named)

    def results(
        self, function: Callable[..., T], items: Iterable[Any], *, progress: Progress | None = None
    ) -> list[T | Exception]:
        """Call ``function(sandbox, item)`` for each item; return what each returned, or raised, in order.

        Unlike ``map``, one failure hides no other result. ``progress`` hears of every item that is done.
        """
        futures = [self.submit(function, item) for item in items]
        try:
            for done, _ in enumerate(as_completed(futures), start=1):
                if progress is not None:
                    progress("items", done, len(futures))
            return [_outcome(future) for future in futures]
        finally:  # an interrupt: what has not begun is not wanted any more
            for future in futures:
                future.cancel()

    def run(self, commands: Iterable[Command], **keywords: Any) -> Iterator[Completed[Any]]:
        """Run each command in a machine of its own; yield how each ended, in order. Keywords as for ``run``."""
        return self.map(lambda sandbox, command: sandbox.run(command, **keywords), commands)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more; with ``cancel_futures`` drop what has not begun."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


def _outcome(future: Future[Any]) -> Any:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return error
    raise error
