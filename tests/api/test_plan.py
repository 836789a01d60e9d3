"""What is found before a machine starts, and in which order."""

from __future__ import annotations

import pytest

from sandbox_nb import host, plan
from sandbox_nb.errors import FailedPrecondition
from sandbox_nb.options import Options


async def test_no_image_is_built_for_an_accelerator_that_does_not_work(monkeypatch):
    async def refuse(options):
        raise FailedPrecondition("KVM does not work")

    async def build(options, progress):
        pytest.fail("an image was built")

    monkeypatch.setattr(host, "choose_accelerator", refuse)
    monkeypatch.setattr(host, "ensure_image", build)
    with pytest.raises(FailedPrecondition, match="KVM"):
        await plan.make(Options(accel="kvm"), None)
