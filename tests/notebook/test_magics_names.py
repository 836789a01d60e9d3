"""Several sandboxes, by name and by variable, the user's own ones among them."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vm


def test_the_current_one_is_meant_and_the_only_one(kernel):
    kernel.run("%sandbox start --name a")
    assert kernel.run("%sandbox run -- hostname").stdout == "a\n"
    kernel.run("%sandbox start --name b")
    assert "which sandbox? --name a or b" in kernel.run("%sandbox run -- hostname").error
    assert kernel.run("%sandbox use b").stdout == "b: is the current sandbox, running\n"
    assert kernel.run("%sandbox run -- hostname").stdout == "b\n"
    assert kernel.run("%sandbox run --name a -- hostname").stdout == "a\n"
    assert [line.split()[:2] for line in kernel.run("%sandbox list").stdout.splitlines()[1:]] == [
        ["a", "running"],
        ["*", "b"],
    ]
    assert kernel.run("%sandbox stop").stdout == "b: stopped\n"
    assert kernel.run("%sandbox run -- hostname").stdout == "a\n"
    assert "did you mean a" not in kernel.run("%sandbox use nothing").error


def test_a_machine_started_afresh_is_the_current_one_if_it_was(kernel):
    kernel.run("%sandbox start\n%sandbox start --name web\n%sandbox use web")
    assert kernel.run("%sandbox start --replace").error == ""
    assert kernel.run("%%sandbox run\nhostname").stdout == "web\n"
    kernel.run("get_ipython().magics_manager.registry['SandboxMagics'].session.find('web').stop()")
    assert kernel.run("%sandbox start").error == ""
    assert kernel.run("%%sandbox run\nhostname").stdout == "web\n"
    assert kernel.run("%sandbox stop").stdout == "web: stopped\n"
    assert kernel.run("%%sandbox run\nhostname").stdout == "sandbox\n"


CANNOT_STOP = """
from sandbox_nb import Sandbox, FailedPrecondition
def refuse(sandbox):
    raise FailedPrecondition("it will not")
held = Sandbox.started(name="held")
session = get_ipython().magics_manager.registry["SandboxMagics"].session
session.sandboxes = {"held": held, **session.sandboxes}
held.close, stop = refuse.__get__(held), held.stop
"""


@pytest.mark.parametrize("line", ["%sandbox stop --all", "%unload_ext sandbox_nb"])
def test_a_machine_that_will_not_stop_keeps_no_other_up(kernel, line):
    kernel.run("%sandbox start --name a\n%sandbox start --name b")
    kernel.run("machines = get_ipython().magics_manager.registry['SandboxMagics'].session.sandboxes.copy()")
    assert kernel.run(CANNOT_STOP).error == ""
    assert "it will not" in kernel.run(line).error
    assert kernel.value("[one.state.value for one in machines.values()]") == ["stopped", "stopped"]
    assert kernel.value("list(session.sandboxes)") == []
    if line.startswith("%unload"):
        assert "not found" in kernel.run("%sandbox list").stderr
        assert kernel.complete("%sandbox sta") != ["start", "status"]
        assert kernel.run("%reload_ext sandbox_nb").error == ""
    assert "no sandbox" in kernel.run("%sandbox list").stdout
    assert kernel.run("stop()").error == ""


def test_a_start_under_way_is_taken_back_by_stop_and_not_doubled_by_start(kernel):
    kernel.run("from sandbox_nb import Sandbox; mine = Sandbox('mine'); starting = mine.begin_start()")
    kernel.run("while mine.state.value == 'new': pass")
    assert kernel.run("%sandbox use mine\n%sandbox start").stdout.splitlines()[1].startswith("mine: is ")
    assert kernel.run("%sandbox stop").stdout == "mine: stopped\n"
    assert kernel.value("mine.state.value") == "stopped"
    assert "no sandbox" in kernel.run("%sandbox list").stdout


def test_a_sandbox_in_a_variable(kernel):
    kernel.run("from sandbox_nb import Sandbox; mine = Sandbox.started(name='host-name')")
    assert "did you mean mine" in kernel.run("%sandbox use mien").error
    assert kernel.run("%sandbox use mine").stdout == "mine: is the current sandbox, running\n"
    assert kernel.run("%%sandbox run\nhostname").stdout == "host-name\n"
    assert kernel.run("%unload_ext sandbox_nb").error == ""
    assert kernel.run("print(mine.run('hostname').stdout)").stdout == "host-name\n\n"


def test_an_async_sandbox_on_the_notebooks_own_loop(kernel):
    """The one case that needs a loop within a loop; nothing else may patch asyncio."""
    kernel.run("from sandbox_nb import AsyncSandbox; mine = AsyncSandbox('async')")
    assert "await mine.start()" in kernel.run("%sandbox use mine").error
    assert kernel.run("await mine.start()").error == ""
    kernel.run("%sandbox start --name other\n%sandbox run --name other -- true")
    assert kernel.run("import asyncio; print(hasattr(asyncio, '_nest_patched'))").stdout == "False\n"
    kernel.run("%sandbox use mine")

    said = kernel.run("%%sandbox run --out r\nhostname; echo err >&2; exit 3")
    assert (said.stdout, said.stderr) == ("async\n", "err\n")
    assert "exit status 3" in said.error
    assert kernel.value("[r.returncode, r.stdout]") == [3, "async\n"]
    assert kernel.run("%sandbox call System.Info").error == ""
    assert kernel.run("%%sandbox write /root/x\nhello").error == ""
    assert kernel.run("print((await mine.read('/root/x')).decode())").stdout == "hello\n\n"
    assert "timed out" in kernel.run("%sandbox run --timeout 0.3 -- sleep 60").error
    kernel.run("%%sandbox run --bg --out job\nsleep 0.2; echo done")
    assert kernel.value("job.wait().stdout") == "done\n"
    assert (
        kernel.run("print((await asyncio.gather(mine.run('echo 1'), mine.run('echo 2')))[1].stdout)").stdout
        == "2\n\n"
    )
    assert kernel.run("%sandbox run --name other -- hostname").stdout == "other\n"
    assert kernel.run("%sandbox restart").error == ""
    assert kernel.run("await mine.stop()").error == ""
    assert "stopped" in kernel.run("%sandbox run -- true").error


def test_an_async_sandbox_of_another_threads_loop_and_of_a_loop_that_is_closed(kernel):
    kernel.run(
        "import asyncio, threading\nfrom sandbox_nb import AsyncSandbox\n"
        "loop = asyncio.new_event_loop(); thread = threading.Thread(target=loop.run_forever); thread.start()\n"
        "mine = AsyncSandbox('mine'); asyncio.run_coroutine_threadsafe(mine.start(), loop).result()"
    )
    kernel.run("%sandbox use mine")
    assert kernel.run("%%sandbox run\nhostname").stdout == "mine\n"
    assert kernel.run("print(hasattr(asyncio, '_nest_patched'))").stdout == "False\n"
    kernel.run("asyncio.run_coroutine_threadsafe(mine.stop(), loop).result()")
    kernel.run("loop.call_soon_threadsafe(loop.stop); thread.join(); loop.close()")
    closed = kernel.run("%sandbox run hostname")
    assert "loop of this sandbox is closed" in closed.error
    assert (closed.error.count("\n"), closed.stderr) == (0, "")


def test_an_interrupt_ends_a_command_on_the_notebooks_own_loop(kernel):
    assert kernel.run("from sandbox_nb import AsyncSandbox; mine = AsyncSandbox(); await mine.start()").error == ""
    assert kernel.run("%sandbox use mine").error == ""
    message = kernel.client.execute("%%sandbox run\necho early; sleep 987")
    while kernel.client.get_iopub_msg(timeout=30)["msg_type"] != "stream":
        pass
    kernel.manager.interrupt_kernel()
    assert "KeyboardInterrupt" in kernel.collect(message).error
    assert kernel.run("print((await mine.run('pgrep -f \"[s]leep 987\"')).stdout)").stdout == "\n"
    kernel.run("await mine.stop()")
