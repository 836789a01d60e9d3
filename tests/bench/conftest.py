from __future__ import annotations

import pytest


@pytest.fixture
def shrink(monkeypatch):
    """Sets constants of a section, so that it takes less time."""

    def by(section, **constants):
        for name, value in constants.items():
            monkeypatch.setattr(section, name, value)

    return by
