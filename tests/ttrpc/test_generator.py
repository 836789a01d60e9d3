"""The plug-in for protoc, on descriptors made here."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.empty_pb2 import DESCRIPTOR as EMPTY

from sandbox_nb.ttrpc.generator import generate


def example(name: str = "a/b-c/things.proto", package: str = "x.v1") -> FileDescriptorProto:
    """Return a file with one message in another and a service with a method of each kind."""
    scope = f".{package}" if package else ""
    file = FileDescriptorProto(name=name, package=package, syntax="proto3")
    file.message_type.add(name="Outer").nested_type.add(name="Inner")
    service = file.service.add(name="Things")
    types = {"input_type": f"{scope}.Outer.Inner", "output_type": f"{scope}.Outer"}
    service.method.add(name="Get", **types)
    service.method.add(name="ListHTTPThings", server_streaming=True, **types)
    service.method.add(name="Import", client_streaming=True, **types)
    service.method.add(name="Watch", client_streaming=True, server_streaming=True, **types)
    service.method.add(name="Reset", input_type=".google.protobuf.Empty", output_type=".google.protobuf.Empty")
    return file


def comment(file: FileDescriptorProto, path: list[int], text: str) -> None:
    file.source_code_info.location.add(path=path, leading_comments=text)


def run(*files: FileDescriptorProto, parameter: str = "") -> CodeGeneratorResponse:
    empty = FileDescriptorProto.FromString(EMPTY.serialized_pb)
    names = [file.name for file in files]
    return generate(CodeGeneratorRequest(file_to_generate=names, proto_file=[empty, *files], parameter=parameter))


def functions(source: str, name: str) -> dict[str, str]:
    """Return the signature of each method of a class, by name."""
    [found] = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name]
    return {
        node.name: ("async " if isinstance(node, ast.AsyncFunctionDef) else "")
        + ast.unparse(node.args)
        + " -> "
        + ast.unparse(node.returns)
        for node in found.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__"
    }


def test_a_client_has_a_typed_method_for_each_kind():
    [file] = run(example()).file
    tail = "*, timeout: float | None=None, metadata: Metadata | None=None"
    assert file.name == "a/b_c/things_ttrpc.py"
    assert functions(file.content, "ThingsClient") == {
        "get": f"async self, request: things_pb2.Outer.Inner, {tail} -> things_pb2.Outer",
        "list_http_things": f"self, request: things_pb2.Outer.Inner, {tail} -> ServerStream[things_pb2.Outer]",
        "import_": f"self, {tail} -> ClientStream[things_pb2.Outer.Inner, things_pb2.Outer]",
        "watch": f"self, {tail} -> BidiStream[things_pb2.Outer.Inner, things_pb2.Outer]",
        "reset": f"async self, {tail} -> empty_pb2.Empty",
    }


def test_a_base_has_a_typed_handler_for_each_kind():
    [file] = run(example()).file
    requests = "requests: AsyncIterator[things_pb2.Outer.Inner]"
    assert functions(file.content, "ThingsBase") == {
        "get": "async self, request: things_pb2.Outer.Inner, context: Context -> things_pb2.Outer",
        "list_http_things": "self, request: things_pb2.Outer.Inner, context: Context"
        " -> AsyncIterator[things_pb2.Outer]",
        "import_": f"async self, {requests}, context: Context -> things_pb2.Outer",
        "watch": f"self, {requests}, context: Context -> AsyncIterator[things_pb2.Outer]",
        "reset": "async self, request: empty_pb2.Empty, context: Context -> empty_pb2.Empty",
    }


def test_messages_of_the_same_folder_are_imported_relatively_and_others_absolutely():
    other = FileDescriptorProto(name="other/common.proto", package="y", syntax="proto3")
    other.message_type.add(name="Shared")
    file = example()
    file.service[0].method.add(name="Share", input_type=".y.Shared", output_type=".y.Shared")
    content = run(other, file).file[0].content
    assert "\nfrom . import things_pb2\n" in content
    assert "\nfrom other import common_pb2\n" in content
    assert "\nfrom google.protobuf import empty_pb2\n" in content


def test_modules_without_a_package_are_imported_plainly():
    content = run(example(name="things.proto")).file[0].content
    assert "\nimport things_pb2\n" in content


def test_modules_of_one_name_are_told_apart():
    other = FileDescriptorProto(name="other/things.proto", package="y", syntax="proto3")
    other.message_type.add(name="Outer")
    file = example()
    file.service[0].method.add(name="Share", input_type=".y.Outer", output_type=".x.v1.Outer")
    content = run(other, file).file[0].content
    assert "\nfrom . import things_pb2 as a_b_c_things_pb2\n" in content
    assert "\nfrom other import things_pb2 as other_things_pb2\n" in content
    assert '("Share", "share", other_things_pb2.Outer, False, False)' in content


def test_the_runtime_is_imported_from_where_the_option_says():
    for parameter, package in (("", "ttrpc"), ("runtime=my.rpc", "my.rpc")):
        [file] = run(example(), parameter=parameter).file
        assert f"\n    from {package} import BidiStream, Client, " in file.content


def test_an_unknown_option_is_an_error_that_protoc_shows():
    response = run(example(), parameter="speed=high")
    assert "unknown option 'speed'" in response.error
    assert not response.file


def test_comments_become_docstrings_whatever_is_in_them():
    file = example()
    comment(file, [6, 0, 2, 0], ' Gets "it" from C:\\new.\n\n It\'s """quoted""" ' + "and long " * 30 + "\n")
    tree = ast.parse(run(file).file[0].content)
    texts = [ast.get_docstring(node) for node in ast.walk(tree) if getattr(node, "name", "") == "get"]
    for text, verb in zip(texts, ("Call", "Answer"), strict=True):
        summary, first, second = text.split("\n\n")
        assert (summary, first) == (f"{verb} ``Things/Get``.", 'Gets "it" from C:\\new.')
        assert second.startswith("It's '''quoted''' and long and long")
        assert max(map(len, text.splitlines())) <= 100


def test_a_file_without_a_service_has_no_stubs_and_one_without_a_package_works():
    file = example(package="")
    bare = FileDescriptorProto(name="bare.proto", syntax="proto3")
    [made] = run(bare, file).file
    assert 'SERVICE = "Things"' in made.content


def test_names_on_the_wire_are_those_of_the_proto():
    content = run(example()).file[0].content
    assert '"x.v1.Things",\n            "ListHTTPThings",' in content
    assert '("ListHTTPThings", "list_http_things", things_pb2.Outer.Inner, False, True)' in content


def test_it_is_a_program_that_speaks_to_protoc_over_its_standard_streams():
    request = CodeGeneratorRequest(file_to_generate=["a/b-c/things.proto"])
    request.proto_file.extend([FileDescriptorProto.FromString(EMPTY.serialized_pb), example()])
    package = generate.__module__
    root = Path(sys.modules[package.partition(".")[0]].__file__).parent.parent
    answer = subprocess.run(
        [sys.executable, "-m", package],
        input=request.SerializeToString(),
        stdout=subprocess.PIPE,
        cwd=root,
        check=True,
    ).stdout
    assert CodeGeneratorResponse.FromString(answer) == generate(request)
