"""The methods of all services of the agent, by their descriptors."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from google.protobuf.descriptor import MethodDescriptor

from sandbox_nb.guest import proto


@functools.cache
def methods() -> tuple[MethodDescriptor, ...]:
    """Every method of the agent."""
    names = [module.name for module in pkgutil.iter_modules(proto.__path__) if module.name.endswith("_pb2")]
    files = [importlib.import_module(f"{proto.__name__}.{name}").DESCRIPTOR for name in names]
    return tuple(
        method for file in files for service in file.services_by_name.values() for method in service.methods
    )
