"""The magics in a real kernel."""

from __future__ import annotations

import re
import socket
import time

import pytest
from support import alive, descendants

pytestmark = pytest.mark.vm


def test_start_run_status_stop(kernel):
    started = kernel.run("%sandbox start --cpus 2 --memory 300")
    assert started.error == ""
    assert re.search(r"started (cold|warm) in \d", started.stdout)
    assert "2 processors, 300 MiB" in started.stdout
    assert started.stdout.count("\n") == 1

    ran = kernel.run("%%sandbox run\necho out; echo err >&2; nproc")
    assert (ran.stdout, ran.stderr, ran.error) == ("out\n2\n", "err\n", "")
    assert kernel.run("%sandbox run -- echo 'a  b'").stdout == "a  b\n"

    again = kernel.run("%sandbox start --cpus 2 --memory 300")
    assert (again.error, again.stdout.count("\n")) == ("", 1)
    assert "--reuse" in again.stdout
    assert "--replace" in again.stdout
    assert "--replace" not in kernel.run("%sandbox start --reuse").stdout
    assert "started" in kernel.run("%sandbox start --replace").stdout

    assert "running" not in kernel.run("%sandbox stop").stdout
    assert "no sandbox" in kernel.run("%sandbox status").stdout


def test_a_console_with_nothing_on_it_is_said_to_be_so(kernel):
    kernel.run("%sandbox start")
    assert kernel.run("%sandbox console").stdout == "sandbox: nothing has been written on its console\n"


def test_a_failing_cell_fails_in_one_line_unless_told_not_to(kernel):
    kernel.run("%sandbox start")
    failed = kernel.run("%%sandbox run\necho before; exit 3")
    assert failed.stdout == "before\n"
    assert "exit status 3" in failed.error
    assert failed.error.count("\n") == 0
    assert kernel.run("%%sandbox run --no-raise\nexit 3").error == ""
    quiet = kernel.run("%%sandbox run --no-raise --quiet --out r\necho kept; exit 4")
    assert quiet.stdout == ""
    assert kernel.run("print(r.returncode, r.stdout)").stdout == "4 kept\n\n"
    shown = kernel.run("%%sandbox run --out r\necho both")
    assert shown.stdout == "both\n"
    assert kernel.run("print(r.stdout)").stdout == "both\n\n"


def test_output_comes_before_the_cell_ends(kernel):
    kernel.run("%sandbox start")
    message = kernel.client.execute("%%sandbox run\necho early; sleep 987")
    while True:
        found = kernel.client.get_iopub_msg(timeout=30)
        if found["msg_type"] == "stream":
            assert found["content"]["text"] == "early\n"
            break
    kernel.manager.interrupt_kernel()
    interrupted = kernel.collect(message)
    assert "KeyboardInterrupt" in interrupted.error
    assert kernel.run("%%sandbox run --no-raise\npgrep -f 'sleep 987'").stdout == ""


def test_several_by_name(kernel):
    kernel.run("%sandbox start --name a")
    kernel.run("%sandbox start --name b")
    assert kernel.run("%%sandbox run --name b\nhostname").stdout == "b\n"
    assert kernel.run("%sandbox list").stdout.count("running") == 2
    assert "--name a or b" in kernel.run("%sandbox status").error
    assert kernel.run("%sandbox stop --all").stdout.count("stopped") == 2


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%sandbox strat", "did you mean start"),
        ("%sandbox start --memroy 300", "did you mean --memory"),
        ("%sandbox start --cpu 2", "--cpu 2 --memory 256"),
        ("%sandbox start --cpu 2 --memory 1g", "'1g': a whole number of MiB is needed, which is 1024"),
        ("%sandbox start web", "a sandbox is named by --name web"),
        ("%sandbox start --cpu two --memory 300", "two"),
        ("%sandbox start --kernel /no/vmlinuz", "/no/vmlinuz"),
        ("%sandbox run -- true", "%sandbox start"),
        ("%sandbox stop --name web", "%sandbox start --name web"),
        ("%sandbox run -- 'unbalanced", "quotation"),
        ("%%sandbox start\ncell", "takes no cell"),
        ("%%sandbox run -- true\ncell", "one of the two"),
        ("%%sandbox run --env A\ncell", "NAME=VALUE"),
        ("%%sandbox run --out 1a\ncell", "1a"),
        ("%%sandbox run --out class\ncell", "'class' is no variable name"),
        ("%%sandbox run --stdin nothing\ncell", "no variable 'nothing'"),
        ("%%sandbox\ncell", "takes no cell"),
        ("%sandbox start --name 'two words'", "'two words'"),
        ("%sandbox start --share src", "TAG=PATH"),
        ("%sandbox start --disk a=/no/such.img", "/no/such.img"),
        ("%sandbox start --forward 80", "HOST:GUEST"),
        ("%sandbox start --config /no/such.toml", "/no/such.toml"),
        ("%sandbox start --reuse --replace", "not allowed with"),
        ("%sandbox image buidl", "did you mean build"),
        ("%sandbox image list --x", "%sandbox image list: unknown argument --x"),
        ('%sandbox terminal --command "sh -c \'ls"', "quotes come in pairs"),
        ("%sandbox use nothing", "'nothing' is neither"),
    ],
)
def test_what_is_typed_wrong_is_one_line_that_says_what_to_do(idle, cell, says):
    reply = idle.run(cell)
    assert says in reply.error
    assert "Traceback" not in reply.error
    assert reply.error.count("\n") == 0
    assert idle.run("%sandbox list").stdout == "there is no sandbox; %sandbox start makes one\n"


def test_a_start_whose_port_is_taken_leaves_no_machine(idle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = idle.run(f"%sandbox start --forward {port}:80")
    assert f"port {port} of 127.0.0.1 is taken" in said.error
    assert "no sandbox" in idle.run("%sandbox stop").error


def test_unloading_stops_the_machines(kernel):
    kernel.run("%sandbox start")
    assert kernel.run("%unload_ext sandbox_nb").error == ""
    assert "not found" in kernel.run("%sandbox status").stderr
    assert kernel.run("%load_ext sandbox_nb").error == ""
    assert "no sandbox" in kernel.run("%sandbox status").stdout


def test_a_killed_kernel_leaves_no_machine(kernel):
    kernel.run("%sandbox start")
    pid = int(kernel.run("import os; print(os.getpid())").stdout)
    started = descendants(pid)
    assert len(started) >= 4  # QEMU and the vsock device, each below its guard
    kernel.manager.shutdown_kernel(now=True)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and alive(started):
        time.sleep(0.05)
    assert not alive(started)
