from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConfigureRequest(_message.Message):
    __slots__ = ("entropy", "clock_realtime_ns", "hostname", "machine_id", "init_args", "root")
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    CLOCK_REALTIME_NS_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    INIT_ARGS_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    entropy: bytes
    clock_realtime_ns: int
    hostname: str
    machine_id: str
    init_args: _containers.RepeatedScalarFieldContainer[bytes]
    root: RootDisk
    def __init__(self, entropy: _Optional[bytes] = ..., clock_realtime_ns: _Optional[int] = ..., hostname: _Optional[str] = ..., machine_id: _Optional[str] = ..., init_args: _Optional[_Iterable[bytes]] = ..., root: _Optional[_Union[RootDisk, _Mapping[str, object]]] = ...) -> None: ...

class RootDisk(_message.Message):
    __slots__ = ("serial", "type")
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    serial: str
    type: str
    def __init__(self, serial: _Optional[str] = ..., type: _Optional[str] = ...) -> None: ...

class ConfigureResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
