"""The service of sample.proto, and what the tests want to know of its calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty

from sandbox_nb.ttrpc import Code, Context, StatusError

from .sample_pb2 import Failure, Item, Texts, Total
from .sample_ttrpc import SampleBase


class SampleService(SampleBase):
    """Answers as sample.proto says. ``running`` counts handlers under way, ``cancelled`` those cut off."""

    def __init__(self) -> None:
        self.running = 0
        self.cancelled = 0
        self.contexts: list[Context] = []
        self.changed = asyncio.Condition()

    async def until(self, *, running: int) -> None:
        """Wait until that many handlers are under way."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.running == running)

    async def _count(self, change: int, context: Context | None = None) -> None:
        if context is not None:
            self.contexts.append(context)
        self.running += change
        async with self.changed:
            self.changed.notify_all()

    async def echo(self, request: Item, context: Context) -> Item:
        return request

    async def nothing(self, request: Empty, context: Context) -> Empty:
        return request

    async def fail(self, request: Failure, context: Context) -> Item:
        details = []
        for item in request.details:
            details.append(Any())
            details[-1].Pack(item)
        raise StatusError(request.code, request.message, details)

    async def delay(self, request: Item, context: Context) -> Item:
        await self._count(+1, context)
        try:
            await asyncio.sleep(request.delay_ms / 1e3 if request.delay_ms >= 0 else 3600)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            await self._count(-1)
        return request

    async def metadata(self, request: Empty, context: Context) -> Texts:
        return Texts(texts=[f"{key}={value}" for key, values in context.metadata.items() for value in values])

    async def sum(self, requests: AsyncIterator[Item], context: Context) -> Total:
        await self._count(+1, context)
        try:
            total = Total()
            async for item in requests:
                total.sum += item.number
                total.count += 1
            return total
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            await self._count(-1)

    async def divide(self, request: Item, context: Context) -> AsyncIterator[Item]:
        if request.count < 0:
            raise StatusError(Code.INVALID_ARGUMENT, f"cannot divide into {request.count} parts")
        quotient, rest = divmod(request.number, request.count or 1)
        for index in range(request.count):
            yield Item(number=quotient + (index < rest))

    async def flood(self, request: Item, context: Context) -> AsyncIterator[Item]:
        await self._count(+1, context)
        try:
            data = bytes(request.size)
            for number in range(request.count):
                yield Item(number=number, data=data)
        finally:
            await self._count(-1)

    async def echo_all(self, requests: AsyncIterator[Item], context: Context) -> AsyncIterator[Item]:
        await self._count(+1, context)
        try:
            async for item in requests:
                yield item
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            await self._count(-1)

    async def nothing_all(self, requests: AsyncIterator[Empty], context: Context) -> AsyncIterator[Empty]:
        async for request in requests:
            yield request
