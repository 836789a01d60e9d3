"""What carries vsock: chosen, said, and the same for the machine whichever it is."""

from __future__ import annotations

import pytest

from sandbox_nb import FailedPrecondition, Sandbox, link
from sandbox_nb.vsock import transport

KERNEL_OBSTACLE = transport.kernel_obstacle()


def test_our_own_device_is_taken_where_it_is_asked_for():
    with Sandbox.started(transport="vhost-user") as sandbox:
        assert sandbox.boot.transport == "vhost-user: as asked for"
        assert sandbox.run("echo up").stdout == "up\n"


@pytest.mark.skipif(KERNEL_OBSTACLE is None, reason="the kernel's vhost-vsock can be had here")
def test_without_the_kernels_vsock_auto_says_what_it_lacks_and_kernel_is_refused():
    with Sandbox.started() as sandbox:
        assert sandbox.boot.transport == f"vhost-user: {KERNEL_OBSTACLE}"
    with Sandbox() as refused, pytest.raises(FailedPrecondition, match="transport 'kernel' cannot be had"):
        refused.start(transport="kernel")


@pytest.mark.skipif(KERNEL_OBSTACLE is not None, reason=str(KERNEL_OBSTACLE))
@pytest.mark.parametrize("warm", [False, True])
def test_through_the_kernels_vsock_a_machine_runs_commands(warm):
    with Sandbox.started(transport="kernel", warm=warm) as sandbox:
        assert sandbox.boot.transport == "kernel: as asked for"
        assert sandbox.run("cat", input="x" * 1_000_000).stdout == "x" * 1_000_000


@pytest.mark.parametrize("warm", [False, True])
def test_a_guest_with_a_context_id_of_its_own_calls_the_port_of_that_number(warm, monkeypatch):
    """As guests of the kernel's vhost-vsock do; here through our own device, with such a context id."""
    monkeypatch.setattr(link, "open_link", lambda kind, *given: link.DeviceLink(*given, cid=77_777))
    with Sandbox.started(warm=warm) as sandbox:
        assert sandbox.run("echo up").stdout == "up\n"
