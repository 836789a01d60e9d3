from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Entry(_message.Message):
    __slots__ = ("name", "mode", "size", "mtime", "mtime_nanos", "uid", "gid", "target", "link")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MTIME_FIELD_NUMBER: _ClassVar[int]
    MTIME_NANOS_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    mode: int
    size: int
    mtime: int
    mtime_nanos: int
    uid: int
    gid: int
    target: bytes
    link: bytes
    def __init__(self, name: _Optional[bytes] = ..., mode: _Optional[int] = ..., size: _Optional[int] = ..., mtime: _Optional[int] = ..., mtime_nanos: _Optional[int] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., target: _Optional[bytes] = ..., link: _Optional[bytes] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("path", "stream")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    stream: str
    def __init__(self, path: _Optional[bytes] = ..., stream: _Optional[str] = ...) -> None: ...

class ReadResponse(_message.Message):
    __slots__ = ("size", "mode")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    size: int
    mode: int
    def __init__(self, size: _Optional[int] = ..., mode: _Optional[int] = ...) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("path", "stream", "mode", "size")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    stream: str
    mode: int
    size: int
    def __init__(self, path: _Optional[bytes] = ..., stream: _Optional[str] = ..., mode: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class WriteResponse(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class StatRequest(_message.Message):
    __slots__ = ("path", "no_follow")
    PATH_FIELD_NUMBER: _ClassVar[int]
    NO_FOLLOW_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    no_follow: bool
    def __init__(self, path: _Optional[bytes] = ..., no_follow: bool = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("path", "stream")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    stream: str
    def __init__(self, path: _Optional[bytes] = ..., stream: _Optional[str] = ...) -> None: ...

class MkdirRequest(_message.Message):
    __slots__ = ("path", "mode", "parents", "exist_ok")
    PATH_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    mode: int
    parents: bool
    exist_ok: bool
    def __init__(self, path: _Optional[bytes] = ..., mode: _Optional[int] = ..., parents: bool = ..., exist_ok: bool = ...) -> None: ...

class RemoveRequest(_message.Message):
    __slots__ = ("path", "recursive")
    PATH_FIELD_NUMBER: _ClassVar[int]
    RECURSIVE_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    recursive: bool
    def __init__(self, path: _Optional[bytes] = ..., recursive: bool = ...) -> None: ...

class PackRequest(_message.Message):
    __slots__ = ("path", "stream")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    stream: str
    def __init__(self, path: _Optional[bytes] = ..., stream: _Optional[str] = ...) -> None: ...

class UnpackRequest(_message.Message):
    __slots__ = ("path", "stream")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    stream: str
    def __init__(self, path: _Optional[bytes] = ..., stream: _Optional[str] = ...) -> None: ...

class UnpackResponse(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    def __init__(self, path: _Optional[bytes] = ...) -> None: ...
