"""Real machines for the tests. Two are shared by those that leave them as they found them."""

from __future__ import annotations

import pytest

from sandbox_nb import Sandbox


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/machine" in str(item.path):
            item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="session", params=["cold", "warm"])
def sb(request):
    """A running machine, booted or restored, that no test may stop, or leave a process in."""
    if request.param == "warm":
        with Sandbox.started():
            pass  # there is a template now
    with Sandbox.started(name="shared", warm=request.param == "warm") as sandbox:
        assert sandbox.boot.kind == request.param
        yield sandbox


@pytest.fixture
def own():
    """A sandbox of the test's own, not started."""
    with Sandbox("own") as sandbox:
        yield sandbox
