from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetRequest(_message.Message):
    __slots__ = ("processes",)
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    processes: bool
    def __init__(self, processes: bool = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("uptime_ns", "cpu_busy", "cpu_total", "memory_total", "memory_available", "disks", "networks", "processes")
    UPTIME_NS_FIELD_NUMBER: _ClassVar[int]
    CPU_BUSY_FIELD_NUMBER: _ClassVar[int]
    CPU_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    DISKS_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    uptime_ns: int
    cpu_busy: int
    cpu_total: int
    memory_total: int
    memory_available: int
    disks: _containers.RepeatedCompositeFieldContainer[Traffic]
    networks: _containers.RepeatedCompositeFieldContainer[Traffic]
    processes: _containers.RepeatedCompositeFieldContainer[Process]
    def __init__(self, uptime_ns: _Optional[int] = ..., cpu_busy: _Optional[int] = ..., cpu_total: _Optional[int] = ..., memory_total: _Optional[int] = ..., memory_available: _Optional[int] = ..., disks: _Optional[_Iterable[_Union[Traffic, _Mapping[str, object]]]] = ..., networks: _Optional[_Iterable[_Union[Traffic, _Mapping[str, object]]]] = ..., processes: _Optional[_Iterable[_Union[Process, _Mapping[str, object]]]] = ...) -> None: ...

class Traffic(_message.Message):
    __slots__ = ("name", "in_bytes", "out_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IN_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    in_bytes: int
    out_bytes: int
    def __init__(self, name: _Optional[str] = ..., in_bytes: _Optional[int] = ..., out_bytes: _Optional[int] = ...) -> None: ...

class Process(_message.Message):
    __slots__ = ("pid", "parent", "state", "command", "cpu_time", "resident")
    PID_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    CPU_TIME_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_FIELD_NUMBER: _ClassVar[int]
    pid: int
    parent: int
    state: str
    command: str
    cpu_time: int
    resident: int
    def __init__(self, pid: _Optional[int] = ..., parent: _Optional[int] = ..., state: _Optional[str] = ..., command: _Optional[str] = ..., cpu_time: _Optional[int] = ..., resident: _Optional[int] = ...) -> None: ...
