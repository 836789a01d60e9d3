"""Settings, options from files, help; IPython without a notebook; loading and unloading."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.vm


def test_settings_are_what_a_line_does_not_say(kernel, tmp_path):
    assert kernel.run("%config SandboxMagics.memory = 300").error == ""
    assert "1 processor, 300 MiB" in kernel.run("%sandbox start").stdout
    (tmp_path / "machine.toml").write_text("cpu = 2\nmemory = 320\ninit_args = ['-debug']\n")
    said = kernel.run(f"%sandbox start --replace --config {tmp_path}/machine.toml --memory 310").stdout
    assert "2 processors, 310 MiB" in said
    assert "options: --cpu 2 --memory 310 --init-arg=-debug" in kernel.run("%sandbox status").stdout
    restarted = kernel.run("%sandbox restart").stdout
    assert "2 processors, 310 MiB" in restarted
    assert "no-such.toml" in kernel.run("%sandbox start --replace --config no-such.toml").error
    assert "running" in kernel.run("%sandbox list").stdout  # what was wrong cost nothing
    assert "expected any of" in kernel.run("%config SandboxMagics.accel = 'hvf'").stderr
    assert "memory" in kernel.run("%config SandboxMagics").stdout


def test_tracebacks_only_when_they_are_asked_for(running):
    short = running.run("%sandbox run -- false").error
    assert short.count("\n") == 0
    assert "Traceback" in running.run("%sandbox run --debug -- false").error
    assert "Traceback" in running.run("%sandbox template rm --debug nonsense").error
    assert running.run("%sandbox run -- echo --debug").stdout == "--debug\n"
    running.run("%config SandboxMagics.debug = True")
    assert "Traceback" in running.run("%sandbox run -- false").error
    running.run("%config SandboxMagics.debug = False")


@pytest.mark.parametrize("typed", ["%sandbox help start", "%sandbox start?", "%sandbox start --help"])
def test_help_of_a_command(running, typed):
    said = running.run(typed)
    assert said.error == ""
    assert said.stdout.startswith("usage: %sandbox start [OPTION]...")
    assert "--disk ID=PATH" in said.stdout
    assert "default: base" in said.stdout


def test_help_of_everything(running):
    said = running.run("%sandbox help").stdout
    assert said == running.run("%sandbox").stdout == running.run("%sandbox --help").stdout
    for command in ("%sandbox start", "%%sandbox python", "%sandbox template", "%sandbox forward"):
        assert f"    {command} " in said
    assert max(map(len, said.splitlines())) <= 130
    assert "did you mean restart" in running.run("%sandbox help restrat").error


def test_the_hosts_commands_are_those_of_the_command_line(running):
    assert "QEMU" in running.run("%sandbox doctor").stdout
    assert "base" in running.run("%sandbox image list").stdout
    assert "image=base" in running.run("%sandbox template list").stdout
    assert "no template's key starts with nonsense" in running.run("%sandbox template rm nonsense").error


def test_the_extension_leaves_nothing(kernel):
    before = "(list(get_ipython().Completer.custom_matchers), list(get_ipython().input_transformers_cleanup))"
    kernel.run(f"%unload_ext sandbox_nb\nbefore = {before}, len(get_ipython().configurables)")
    kernel.run("%load_ext sandbox_nb")
    assert kernel.value(f"before == ({before}, len(get_ipython().configurables))") is False
    kernel.run("%sandbox start")
    kernel.run("%unload_ext sandbox_nb")
    assert kernel.value(f"before == ({before}, len(get_ipython().configurables))") is True
    assert kernel.complete("%sandbox sta") != ["start", "status"]
    assert kernel.run("%load_ext sandbox_nb\n%reload_ext sandbox_nb").error == ""
    assert kernel.complete("%sandbox sta") == ["start", "status"]


def test_plain_ipython(tmp_path):
    script = tmp_path / "session.ipy"
    script.write_text(
        "%load_ext sandbox_nb\n"
        "%sandbox start\n"
        "%sandbox run --out r -- seq 1 30000\n"
        "print(len(r.stdout))\n"
        "get_ipython().run_cell_magic('sandbox', 'run', 'echo err >&2')\n"
        "%sandbox timeline\n"
        "get_ipython().run_cell('%sandbox strat');\n"
    )
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", str(script)]
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "sandbox: started" in done.stdout
    assert "29999\n30000\n168894\n" in done.stdout
    assert "err\n" in done.stderr
    assert "did you mean start" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 0
