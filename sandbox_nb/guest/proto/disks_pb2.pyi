from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class FindRequest(_message.Message):
    __slots__ = ("serial",)
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    serial: str
    def __init__(self, serial: _Optional[str] = ...) -> None: ...

class FindResponse(_message.Message):
    __slots__ = ("device", "mounts")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    device: str
    mounts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, device: _Optional[str] = ..., mounts: _Optional[_Iterable[str]] = ...) -> None: ...
