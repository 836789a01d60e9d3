"""ttrpc for Python."""

from __future__ import annotations

from .client import Client
from .client_streams import BidiStream, ClientStream, ServerStream
from .connection import Metadata
from .server import Server
from .service import Context, Method, Service
from .status import Code, MapError, ProtocolError, StatusError

__all__ = [
    "BidiStream",
    "Client",
    "ClientStream",
    "Code",
    "Context",
    "MapError",
    "Metadata",
    "Method",
    "ProtocolError",
    "Server",
    "ServerStream",
    "Service",
    "StatusError",
]
