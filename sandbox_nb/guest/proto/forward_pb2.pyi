from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class DialRequest(_message.Message):
    __slots__ = ("stream", "port", "path")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    stream: str
    port: int
    path: str
    def __init__(self, stream: _Optional[str] = ..., port: _Optional[int] = ..., path: _Optional[str] = ...) -> None: ...

class UnbindRequest(_message.Message):
    __slots__ = ("forward_id",)
    FORWARD_ID_FIELD_NUMBER: _ClassVar[int]
    forward_id: str
    def __init__(self, forward_id: _Optional[str] = ...) -> None: ...
