"""The ``protoc`` plug-in that writes a typed client class and a server base class for each service.

::

    protoc --plugin=protoc-gen-ttrpc=WRAPPER --ttrpc_out=. --ttrpc_opt=runtime=PACKAGE file.proto

``WRAPPER`` is any executable that runs this module (``exec python3 -m ttrpc.generator``) and ``PACKAGE`` the name
under which this package is imported (``ttrpc`` if not given). ``file_ttrpc.py`` goes next to protoc's own
``file_pb2.py``; comments of the .proto become docstrings.
"""

from __future__ import annotations

import keyword
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath as Path
from typing import NamedTuple

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

# How descriptor.proto numbers the fields on the way to the comment of a method.
_SERVICE_FIELD = FileDescriptorProto.SERVICE_FIELD_NUMBER
_METHOD_FIELD = 2  # ServiceDescriptorProto.method

_WIDTH = 100  # of a docstring's lines

_RUNTIME_NAMES = (
    "BidiStream",
    "Client",
    "ClientStream",
    "Context",
    "Metadata",
    "ServerStream",
)


class Module(NamedTuple):
    """A module that protoc makes of a .proto file, in what package, and what it is called where it is imported."""

    package: str
    name: str
    alias: str

    def import_from(self, package: str) -> str:
        """Return the statement that imports it into a module of ``package``."""
        renamed = f" as {self.alias}" if self.alias != self.name else ""
        if not self.package:
            return f"import {self.name}{renamed}"
        return f"from {'.' if self.package == package else self.package} import {self.name}{renamed}"


class MessageClass(NamedTuple):
    """A message class: the module it is in, and its name there."""

    module: Module
    name: str

    def __str__(self) -> str:
        return f"{self.module.alias}.{self.name}"


class Method(NamedTuple):
    """A method, with all that its two faces need."""

    name: str
    client_streams: bool
    server_streams: bool
    request: MessageClass
    response: MessageClass
    comment: str

    @property
    def handler(self) -> str:
        """Its name in Python."""
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.name).lower()
        return f"{name}_" if keyword.iskeyword(name) else name

    @property
    def messages(self) -> tuple[MessageClass, MessageClass]:
        """What its faces name."""
        return self.request, self.response

    @property
    def takes_nothing(self) -> bool:
        """Whether there is nothing to say in its request."""
        return self.request.module[:2] == ("google.protobuf", "empty_pb2")


class Service(NamedTuple):
    """A service: its name, the same with its proto package, and its methods."""

    name: str
    full_name: str
    methods: list[Method]


def generate(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Return the modules for the files that protoc was asked to generate."""
    response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
    options = dict(option.partition("=")[::2] for option in request.parameter.split(",") if option)
    runtime = options.pop("runtime", "ttrpc")
    if options:
        response.error = f"unknown option {next(iter(options))!r}; the only one is runtime=PACKAGE"
        return response
    modules = _modules([file.name for file in request.proto_file])
    classes = {
        name: found for file in request.proto_file for name, found in _message_classes(file, modules[file.name])
    }
    for file in request.proto_file:
        if file.name in request.file_to_generate and file.service:
            name = file.name.removesuffix(".proto").replace("-", "_") + "_ttrpc.py"
            response.file.add(name=name, content=_module(file.name, list(_services(file, classes)), runtime))
    return response


def _modules(files: list[str]) -> dict[str, Module]:
    """Return the module of each .proto file. Those that share a name are told apart by their packages."""
    names = {file: Path(file).stem.replace("-", "_") + "_pb2" for file in files}
    shared = {name for name, count in Counter(names.values()).items() if count > 1}

    def alias(file: str) -> str:
        name = names[file]
        return f"{_package(file).replace('.', '_')}_{name}".lstrip("_") if name in shared else name

    return {file: Module(_package(file), names[file], alias(file)) for file in files}


def _message_classes(file: FileDescriptorProto, module: Module) -> Iterator[tuple[str, MessageClass]]:
    """Yield every message of a file: its name as a descriptor refers to it, and the class protoc makes of it."""
    scope = f".{file.package}" if file.package else ""

    def walk(messages: Iterable[DescriptorProto], outer: str) -> Iterator[tuple[str, MessageClass]]:
        for message in messages:
            name = outer + message.name
            yield f"{scope}.{name}", MessageClass(module, name)
            yield from walk(message.nested_type, f"{name}.")

    return walk(file.message_type, "")


def _package(file: str) -> str:
    """Return the Python package that protoc puts the module of a .proto file into."""
    return ".".join(Path(file).parent.parts).replace("-", "_")


def _services(file: FileDescriptorProto, classes: dict[str, MessageClass]) -> Iterator[Service]:
    comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    scope = f"{file.package}." if file.package else ""
    for number, service in enumerate(file.service):
        methods = [
            Method(
                name=method.name,
                client_streams=method.client_streaming,
                server_streams=method.server_streaming,
                request=classes[method.input_type],
                response=classes[method.output_type],
                comment=comments.get((_SERVICE_FIELD, number, _METHOD_FIELD, index), ""),
            )
            for index, method in enumerate(service.method)
        ]
        yield Service(service.name, scope + service.name, methods)


def _module(source: str, services: list[Service], runtime: str) -> str:
    body = "\n\n".join(_client(service) + "\n\n" + _base(service) for service in services)
    return f'''\
# Generated by {runtime}.generator. Do not edit.
"""Clients and server bases for the services of {source}."""

from __future__ import annotations

{_imports(_package(source), services)}
{_type_imports(runtime, body)}

{body}'''


def _imports(package: str, services: list[Service]) -> str:
    """Return the import block, in isort's order: the standard library, google's, others', our own package's."""
    used = {message.module for service in services for method in service.methods for message in method.messages}
    lines = sorted(module.import_from(package) for module in used)
    blocks = [
        ["from typing import TYPE_CHECKING"],
        [line for line in lines if line.startswith("from google.")],
        [line for line in lines if not line.startswith(("from google.", "from . "))],
        [line for line in lines if line.startswith("from . ")],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _type_imports(runtime: str, body: str) -> str:
    """Return the imports for annotations alone, so that importing the module imports no runtime."""
    names = [name for name in _RUNTIME_NAMES if re.search(rf"\b{name}\b", body)]
    iterator = "    from collections.abc import AsyncIterator\n\n" if "AsyncIterator[" in body else ""
    return f"if TYPE_CHECKING:\n{iterator}    from {runtime} import {', '.join(names)}\n"


def _client(service: Service) -> str:
    methods = "\n".join(_client_method(service, method) for method in service.methods)
    return f'''\
class {service.name}Client:
    """Calls of ``{service.full_name}``."""

    def __init__(self, client: Client) -> None:
        self._client = client

{methods}'''


def _client_method(service: Service, method: Method) -> str:
    call, result = {
        (False, False): ("await self._client.call", f"{method.response}"),
        (True, False): ("self._client.client_stream", f"ClientStream[{method.request}, {method.response}]"),
        (False, True): ("self._client.server_stream", f"ServerStream[{method.response}]"),
        (True, True): ("self._client.bidi_stream", f"BidiStream[{method.request}, {method.response}]"),
    }[method.client_streams, method.server_streams]
    parameters = ["self", "*", "timeout: float | None = None", "metadata: Metadata | None = None"]
    arguments = [f'"{service.full_name}"', f'"{method.name}"', f"{method.response}"]
    if not method.client_streams:
        arguments.insert(2, f"{method.request}()" if method.takes_nothing else "request")
        if not method.takes_nothing:
            parameters.insert(1, f"request: {method.request}")
    return f"""\
    {"async " if call.startswith("await") else ""}def {method.handler}(
{_lines(parameters, 8)}
    ) -> {result}:
{_docstring("Call", service, method)}
        return {call}(
{_lines([*arguments, "timeout=timeout", "metadata=metadata"], 12)}
        )
"""


def _base(service: Service) -> str:
    methods = "\n".join(_base_method(service, method) for method in service.methods)
    table = [
        f'("{its.name}", "{its.handler}", {its.request}, {its.client_streams}, {its.server_streams})'
        for its in service.methods
    ]
    return f'''\
class {service.name}Base:
    """Answers ``{service.full_name}``.

    A method that is not overridden is Unimplemented.
    """

    SERVICE = "{service.full_name}"
    METHODS = (
        # name, handler, type of a request, whether the client streams, whether the server streams
{_lines(table, 8)}
    )

{methods}'''


def _base_method(service: Service, method: Method) -> str:
    many = f"requests: AsyncIterator[{method.request}]"
    parameter = many if method.client_streams else f"request: {method.request}"
    result = f"AsyncIterator[{method.response}]" if method.server_streams else f"{method.response}"
    return f"""\
    {"" if method.server_streams else "async "}def {method.handler}(
{_lines(["self", parameter, "context: Context"], 8)}
    ) -> {result}:
{_docstring("Answer", service, method)}
        raise NotImplementedError
"""


def _lines(items: list[str], indent: int) -> str:
    return "\n".join(f"{' ' * indent}{item}," for item in items)


def _docstring(verb: str, service: Service, method: Method) -> str:
    summary = f"{verb} ``{service.name}/{method.name}``."
    comment = method.comment.replace("\\", "\\\\").replace('"""', "'''")
    paragraphs = [textwrap.fill(" ".join(text.split()), _WIDTH) for text in comment.split("\n\n") if text.strip()]
    if not paragraphs:
        return f'        """{summary}"""'
    text = "\n\n".join([summary, *paragraphs])
    return textwrap.indent(f'"""{text}\n"""', " " * 8)


def main() -> None:
    """Do as protoc asks: the request comes in on standard input, the response goes out on standard output."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(request).SerializeToString())


if __name__ == "__main__":
    main()
