"""A cache of the test's own, and package archives to fill it from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox_nb import binaries
from sandbox_nb.guest import image

from .fakes import Archive


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder that image.* use."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sandbox_nb"


@pytest.fixture
def agent(tmp_path) -> Path:
    path = tmp_path / "agent"
    path.write_bytes(b"\x7fELF an agent")
    return path


@pytest.fixture
def archive(tmp_path, monkeypatch, cache) -> Archive:
    """A package archive on this disk, the only one apt knows; Debian's names are in it."""
    archive = Archive(tmp_path / "archive")
    archive.add_debian()
    monkeypatch.setenv("APT_CONFIG", str(archive.config))
    return archive


@pytest.fixture(scope="session")
def downloaded(tmp_path_factory) -> Path:
    """A cache with both images, built of the distribution's real packages; not to be changed."""
    folder = tmp_path_factory.mktemp("downloaded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        for name in image.NAMES:
            image.build(name, agent=binaries.agent("x86_64"))
    return folder / "sandbox_nb"


@pytest.fixture
def offline(downloaded, cache, monkeypatch) -> Path:
    """An empty cache that has the real packages, on a host that has no apt."""
    for folder in ("apt/archives", "packages"):
        (cache / folder).mkdir(parents=True)
        for path in (downloaded / folder).iterdir():
            if path.is_file():
                os.link(path, cache / folder / path.name)
    monkeypatch.setenv("PATH", "/nowhere")
    return cache
