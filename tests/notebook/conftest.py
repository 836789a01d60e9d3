"""A real Jupyter kernel for the tests."""

from __future__ import annotations

import ast
import contextlib
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

TIMEOUT = 90


@dataclass
class Reply:
    """What a cell put out. ``error`` is its traceback as text, without colours; empty when there was none."""

    stdout: str = ""
    stderr: str = ""
    error: str = ""
    displays: list[dict[str, Any]] = field(default_factory=list)


class Kernel:
    """Runs cells, one after the other, and collects what they put out."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    def run(self, code: str) -> Reply:
        """Run a cell to its end."""
        return self.collect(self.client.execute(code))

    def collect(self, message: str) -> Reply:
        """Wait for the end of the cell that ``message`` asked for."""
        reply = Reply()
        while True:
            found = self.client.get_iopub_msg(timeout=TIMEOUT)
            if found["parent_header"].get("msg_id") != message:
                continue
            kind, content = found["msg_type"], found["content"]
            if kind == "stream":
                setattr(reply, content["name"], getattr(reply, content["name"]) + content["text"])
            elif kind == "error":
                reply.error = "\n".join(content["traceback"])
            elif kind in ("display_data", "update_display_data", "execute_result"):
                reply.displays.append(content["data"])
            elif kind == "status" and content["execution_state"] == "idle":
                return reply

    def complete(self, code: str) -> list[str]:
        """What the end of ``code`` may become."""
        reply = self.client.complete(code, len(code), reply=True, timeout=TIMEOUT)
        return reply["content"]["matches"]

    def value(self, expression: str) -> Any:
        """The value of an expression in the kernel; it must be a literal."""
        return ast.literal_eval(self.run(f"print(repr({expression}))").stdout)


@contextlib.contextmanager
def started_kernel(**environment: str):
    """A fresh kernel with the extension loaded."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env={**os.environ, **environment})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=TIMEOUT)
        kernel = Kernel(manager, client)
        assert kernel.run("%load_ext sandbox_nb").error == ""
        yield kernel
    finally:
        client.stop_channels()
        if manager.has_kernel:
            manager.shutdown_kernel()


@pytest.fixture
def kernel():
    """A kernel of the test's own, with the extension loaded."""
    with started_kernel() as kernel:
        yield kernel


@pytest.fixture(scope="module")
def idle():
    """A kernel of the module's, in which no test may leave a machine."""
    with started_kernel() as kernel:
        yield kernel


@pytest.fixture(scope="module")
def running():
    """A kernel of the module's, with a machine that no test may stop."""
    with started_kernel() as kernel:
        assert kernel.run("%sandbox start").error == ""
        yield kernel
