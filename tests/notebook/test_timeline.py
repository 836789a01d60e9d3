"""``%sandbox timeline`` in a real kernel."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vm


def test_the_start_is_shown_as_a_picture_and_as_text(kernel):
    assert "%sandbox start" in kernel.run("%sandbox timeline").error
    kernel.run("%sandbox start")
    (shown,) = kernel.run("%sandbox timeline").displays
    assert shown["text/html"].startswith("<svg")
    for phase in ("prepare", "dial", "configure"):
        assert phase in shown["text/html"]
        assert phase in shown["text/plain"]
