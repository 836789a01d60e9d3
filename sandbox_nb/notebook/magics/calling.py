"""``%sandbox call``: any method of any service of the agent, found by its descriptor."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from sandbox_nb.blocking import Sandbox
from sandbox_nb.errors import InvalidArgument, NotFound
from sandbox_nb.grammar import Parser, UsageError
from sandbox_nb.guest import methods as agent
from sandbox_nb.notebook.magics.session import Session
from sandbox_nb.notebook.magics.verbs import COMPLETE_METHOD, Cell, Verb, complete, variable
from sandbox_nb.notebook.magics.words import Value
from sandbox_nb.suggest import did_you_mean
from sandbox_nb.ttrpc import BidiStream, Client, ClientStream, ServerStream


def call(session: Session, arguments: argparse.Namespace) -> None:
    """Call a method of the agent; with no METHOD, list them.

    The request is JSON behind the method, or in the cell; {name} takes it from a variable. Bytes are base64 in
    JSON. A method that takes a stream of requests takes a list of them; what one streams is printed as it comes.

    Such as:
      %sandbox call System.Info
      %sandbox call Process.Pids {"id": "p-1"}
      %sandbox call --count 2 Events.Stream
    """
    if arguments.method is None:
        print("\n".join(_described(method) for method in methods().values()))
        return
    method = find(arguments.method)
    requests = _requests(method, _text(arguments))
    sandbox = session.find(arguments.name)
    answers = []
    for message in _answers(sandbox, method, requests, arguments.timeout):
        answers.append(MessageToDict(message, preserving_proto_field_name=True))
        if not arguments.quiet:
            print(json.dumps(answers[-1], indent=None if method.server_streaming else 2), flush=True)
        if len(answers) == arguments.count:
            break
    if arguments.out:
        session.bind(arguments.out, answers if method.server_streaming else answers[0])


@functools.cache
def methods() -> dict[str, MethodDescriptor]:
    """Every method of the agent by ``Service.Method``."""
    return {f"{method.containing_service.name}.{method.name}": method for method in agent.methods()}


def find(text: str) -> MethodDescriptor:
    """The method that ``text`` names, the service with its package or without. Raises NotFound."""
    known = methods()
    for short, method in known.items():
        if text in (short, method.full_name):
            return method
    raise NotFound(f"the agent has no method {text!r}: %sandbox call lists them{did_you_mean(text, known)}")


def _text(arguments: argparse.Namespace) -> str:
    """The request as JSON, also where a line has it as the value of a variable; empty when it is not said."""
    if arguments.cell is not None and arguments.request is not None:
        raise UsageError("the request is in the line or in the cell: one of the two")
    text: str | None = arguments.cell if arguments.cell is not None else arguments.request
    if not isinstance(text, Value):
        return text or ""
    try:
        return json.dumps(text.value)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"the request cannot be JSON: {error}") from None


def _requests(method: MethodDescriptor, text: str) -> list[Message]:
    """The messages that JSON says: one, or those of a list where the method takes a stream."""
    cls = GetMessageClass(method.input_type)
    try:
        given = json.loads(text) if text.strip() else ([] if method.client_streaming else {})
    except ValueError as error:
        raise InvalidArgument(f"the request is no JSON: {error}") from None
    if isinstance(given, list) != method.client_streaming:
        needed = "a list of requests, as it takes a stream" if method.client_streaming else "an object"
        raise InvalidArgument(f"{method.full_name} takes {needed}, not {json.dumps(given)}")
    wanted: list[Any] = given if isinstance(given, list) else [given]
    try:
        return [ParseDict(one, cls()) for one in wanted]
    except ParseError as error:
        fields = ", ".join(field.name for field in method.input_type.fields) or "none"
        said = str(error).splitlines()[0].rstrip(".")
        raise InvalidArgument(f"{said}; {method.input_type.name} has these fields: {fields}") from None


def _answers(
    sandbox: Sandbox, method: MethodDescriptor, requests: list[Message], timeout: float | None
) -> Iterator[Message]:
    """What the method answers, as it comes. An iterator that is left early leaves the call."""
    wait = sandbox.runner.wait
    client = sandbox.client()
    names = (method.containing_service.full_name, method.name)
    answer = GetMessageClass(method.output_type)
    if not method.client_streaming and not method.server_streaming:
        yield wait(client.call(*names, requests[0], answer, timeout=timeout))
        return
    stream = wait(_begin(client, method, names, requests, answer, timeout))
    try:
        if isinstance(stream, ClientStream):
            yield wait(stream.result())
            return
        while (message := wait(stream.receive())) is not None:
            yield message
    finally:
        wait(_cancel(stream))


_Stream = ServerStream[Message] | ClientStream[Message, Message] | BidiStream[Message, Message]


async def _begin(
    client: Client,
    method: MethodDescriptor,
    names: tuple[str, str],
    requests: list[Message],
    answer: type[Message],
    timeout: float | None,
) -> _Stream:
    """A streaming call with all its requests sent."""
    if not method.client_streaming:
        return client.server_stream(*names, requests[0], answer, timeout=timeout)
    begin = client.bidi_stream if method.server_streaming else client.client_stream
    stream: Any = begin(*names, answer, timeout=timeout)
    for request in requests:
        await stream.send(request)
    stream.close_send()
    return stream  # type: ignore[no-any-return]


async def _cancel(stream: _Stream) -> None:
    stream.cancel()


def _described(method: MethodDescriptor) -> str:
    service: ServiceDescriptor = method.containing_service
    fields = ", ".join(field.name for field in method.input_type.fields)
    request = f"[{{{fields}}}, …]" if method.client_streaming else f"{{{fields}}}"
    answer = ", ".join(field.name for field in method.output_type.fields)
    stream = "stream of " if method.server_streaming else ""
    return f"{service.name}.{method.name} {request} → {stream}{{{answer}}}"


def _call_arguments(parser: Parser) -> None:
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for the whole call")
    parser.add_argument("--count", type=int, metavar="N", help="leave a stream after as many messages")
    parser.add_argument("--out", metavar="VARIABLE", type=variable, help="bind the answer; a list for a stream")
    parser.add_argument("--quiet", action="store_true", help="do not print the answer")
    action = parser.add_argument("method", nargs="?", metavar="SERVICE.METHOD", help="with or without the package")
    complete(action, COMPLETE_METHOD)
    parser.add_argument("request", nargs="?", metavar="JSON", help="the request; {} when not said")


VERBS = (Verb("call", call, _call_arguments, Cell.MAY, json=True),)
