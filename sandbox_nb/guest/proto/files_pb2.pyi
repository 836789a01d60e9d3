from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

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
    __slots__ = ("path", "stream", "mode")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    stream: str
    mode: int
    def __init__(self, path: _Optional[bytes] = ..., stream: _Optional[str] = ..., mode: _Optional[int] = ...) -> None: ...

class WriteResponse(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...
