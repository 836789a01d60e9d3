"""Real machines for the tests. One is shared by those that leave it as they found it."""

from __future__ import annotations

import pytest

from sandbox_nb import Sandbox


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/machine" in str(item.path):
            item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="session")
def sb():
    """A running machine that no test may stop, or leave a process in."""
    with Sandbox.started(name="shared") as sandbox:
        yield sandbox


@pytest.fixture
def own():
    """A sandbox of the test's own, not started."""
    with Sandbox("own") as sandbox:
        yield sandbox
