from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BindRequest(_message.Message):
    __slots__ = ("sockets",)
    SOCKETS_FIELD_NUMBER: _ClassVar[int]
    sockets: _containers.RepeatedCompositeFieldContainer[Socket]
    def __init__(self, sockets: _Optional[_Iterable[_Union[Socket, _Mapping[str, object]]]] = ...) -> None: ...

class Socket(_message.Message):
    __slots__ = ("forward_id", "socket_path")
    FORWARD_ID_FIELD_NUMBER: _ClassVar[int]
    SOCKET_PATH_FIELD_NUMBER: _ClassVar[int]
    forward_id: str
    socket_path: str
    def __init__(self, forward_id: _Optional[str] = ..., socket_path: _Optional[str] = ...) -> None: ...

class ConnectRequest(_message.Message):
    __slots__ = ("stream_id", "forward_id")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    FORWARD_ID_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    forward_id: str
    def __init__(self, stream_id: _Optional[str] = ..., forward_id: _Optional[str] = ...) -> None: ...

class ConnectResult(_message.Message):
    __slots__ = ("stream_id", "error")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    error: str
    def __init__(self, stream_id: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...
