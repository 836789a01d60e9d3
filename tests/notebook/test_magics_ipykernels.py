"""The magics in kernels of other versions, and with the oldest IPython that is allowed."""

from __future__ import annotations

import pytest
from support import path_with

from .conftest import started_kernel

pytestmark = [pytest.mark.vm, pytest.mark.soak]


@pytest.fixture(
    params=[
        ["ipykernel==6.29.5", "nest-asyncio"],
        ["ipykernel==6.31.0", "nest-asyncio"],
        ["ipykernel==7.0.1"],
        ["ipykernel==7.3.0"],
        ["ipython==8.20.0", "decorator", "ipykernel==6.29.5", "nest-asyncio"],
    ],
    ids=lambda packages: packages[0],
)
def other(request, tmp_path):
    """A kernel in which these packages come before those that are installed."""
    with started_kernel(PYTHONPATH=path_with(request.param, tmp_path)) as kernel:
        package, version = request.param[0].replace("ipython", "IPython").split("==")
        assert kernel.value(f"__import__({package!r}).__version__") == version
        yield kernel


def test_the_magics_work_and_a_sandbox_of_the_notebooks_loop_too(other):
    assert other.run("%sandbox start").error == ""
    assert other.run("%%sandbox run --out r\necho out; echo err >&2").stdout == "out\n"
    assert other.run("%sandbox run false").error.count("\n") == 0
    assert other.run("%sandbox start?").stdout.startswith("usage: %sandbox start")
    assert other.complete("%sandbox sta") == ["start", "status"]
    assert other.complete("%%sandbox write /ro") == ["/root/"]
    assert other.run("%config SandboxMagics.memory = 300").error == ""

    assert (
        other.run("from sandbox_nb import AsyncSandbox; mine = AsyncSandbox('mine'); await mine.start()").error
        == ""
    )
    assert other.run("%sandbox use mine").error == ""
    assert other.run("%%sandbox run\nhostname").stdout == "mine\n"
    assert "timed out" in other.run("%sandbox run --timeout 0.3 sleep 60").error
    assert other.run("print((await mine.run('hostname')).stdout)").stdout == "mine\n\n"
    assert other.run("%sandbox run --name sandbox hostname").stdout == "sandbox\n"
    assert other.run("await mine.stop()").error == ""
    assert other.run("%unload_ext sandbox_nb").error == ""
