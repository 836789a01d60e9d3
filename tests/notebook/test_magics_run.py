"""What a cell does in the guest: ``run``, ``python`` and ``write``."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vm


def refused(reply, says):
    """Whether a cell ended with one line that says it."""
    assert says in reply.error
    assert reply.error.count("\n") == 0
    return True


def test_values_go_in_by_name_each_as_one_word(running):
    running.run("count, text = 3, 'two words; \"quoted\"'")
    said = running.run(
        """%sandbox run -- printf '%s|' {count} x{count} {text} {{count}} '{print $1}' '{nothing}'"""
    )
    assert said.stdout == '3|x3|two words; "quoted"|{count}|{print $1}|{nothing}|'


def test_a_commands_own_options_are_its_own(running):
    assert running.run("%sandbox run --user nobody ls -d --color=never /etc").stdout == "/etc\n"
    assert running.run("%sandbox run -- --version").error.count("--version") == 1
    assert running.run("%sandbox run echo a --debug b").stdout == "a --debug b\n"
    running.run("flag, end = '--debug', '--'")
    assert running.run("%sandbox run echo {end} {flag}").stdout == "-- --debug\n"
    assert refused(running.run("%sandbox run {flag} ls"), "exit status 127")
    assert "did you mean --quiet" in running.run("%sandbox run --quite ls").error


def test_the_text_of_a_cell_stays_as_it_is(running):
    running.run("count = 3")
    said = running.run("%%sandbox run --env N={count}\necho {count} $N ${N} $(awk 'BEGIN {print \"a\"}')")
    assert said.stdout == "{count} 3 3 a\n"
    assert running.run("HOME = 'ours'\n%sandbox run -- sh -c 'echo $HOME'").stdout == "/root\n"


def test_standard_input_comes_from_a_variable(running):
    running.run("text, data, number = 'äöü', bytes(range(256)), 5")
    assert running.run("%%sandbox run --stdin text\ncat").stdout == "äöü"
    assert running.run("%%sandbox run --stdin data\nwc -c").stdout.strip() == "256"
    assert running.run("%%sandbox run\ncat").stdout == ""
    assert refused(running.run("%%sandbox run --stdin number\ncat"), "--stdin number=5: text or bytes")
    assert refused(running.run("%%sandbox run --stdin txet\ncat"), "did you mean text")


def test_folder_user_and_environment(running):
    said = running.run("%%sandbox run --cwd /tmp --user nobody --env 'A=b c'\npwd; id -un; echo \"$A\"")
    assert said.stdout == "/tmp\nnobody\nb c\n"


def test_another_interpreter_gets_the_cell_as_a_file(running):
    assert running.run("%%sandbox run --interpreter cat\nsaid {as} it $is").stdout == "said {as} it $is\n"
    assert running.run("%%sandbox run --interpreter /bin/sh\necho $0 | cut -d- -f1").stdout == "/tmp/sandbox_nb\n"
    assert running.run("%sandbox run -- ls /tmp").stdout == ""
    assert "exit status 127" in running.run("%%sandbox run --interpreter perl\n1").error


def test_another_user_may_read_the_file_that_is_the_cell(running):
    said = running.run("%%sandbox run --user nobody --interpreter /bin/sh\nid -un; stat -c %a $0")
    assert (said.stdout, said.error) == ("nobody\n644\n", "")
    running.run("%%sandbox run --bg --out job --user nobody --interpreter /bin/sh\nid -un")
    assert running.value("job.wait().stdout") == "nobody\n"
    assert running.run("%%sandbox run --interpreter /bin/sh\nstat -c %a $0").stdout == "600\n"
    assert running.run("%sandbox run -- ls /tmp").stdout == ""


def test_a_command_out_of_time_is_named_and_what_it_wrote_is_kept(running):
    late = running.run("%%sandbox run --timeout 0.5 --out r\necho before; sleep 60")
    assert late.stdout == "before\n"
    assert refused(late, "'the cell' timed out after 0.5 seconds")
    assert running.value("[r.returncode, r.stdout]") == [None, "before\n"]


def test_a_result_says_everything(running):
    running.run("%%sandbox run --no-raise --quiet --out r\necho out; echo err >&2; exit 7")
    assert running.value("[r.returncode, r.stdout, r.stderr, dict(r.files)]") == [7, "out\n", "err\n", {}]
    assert running.value("repr(r)") == "<'echo out; echo err >&2; exit 7': returncode 7, 4 + 4 bytes of output>"
    assert "exit status 7" in running.run("r.check_returncode()").error


def test_what_a_line_has_no_shell_for_is_said_to_need_one(running):
    said = running.run("%sandbox run cd /tmp")
    assert said.stderr.splitlines()[1:] == ["a line is one program and its arguments; %%sandbox run has a shell"]
    assert refused(said, "exit status 127")
    assert "shell" not in running.run("%sandbox run sh -c 'nosuch'").stderr
    assert "shell" not in running.run("%%sandbox run\nnosuch").stderr


def test_what_ended_for_want_of_memory_is_told_how_to_get_more(running):
    said = running.run("%sandbox run tail /dev/zero")
    assert refused(said, "for want of memory (%sandbox start --replace --cpu 1 --memory 512)")


# Jobs


def test_a_job_runs_on_while_the_notebook_goes_on(running):
    assert (
        running.run(
            "%%sandbox run --bg --out job\ntouch /tmp/on; until rm /tmp/go; do sleep 0.1; done; echo gone"
        ).error
        == ""
    )
    assert running.value("job.running") is True
    assert "running for" in running.value("repr(job)")
    running.run("%sandbox run -- touch /tmp/go")
    assert running.value("job.wait().stdout") == "gone\n"
    assert running.value("[job.running, job.output, job.wait().returncode]") == [False, "gone\n", 0]
    running.run("%sandbox run -- rm -f /tmp/on")


def test_a_job_without_a_variable_is_the_cells_value(running):
    (shown,) = running.run("%sandbox run --bg -- sleep 987").displays
    assert "<job 'sleep 987': running" in shown["text/plain"]
    running.run("job = _; job.stop(); job.stop()")
    assert running.value("[job.running, job.wait().returncode]") == [False, -9]
    assert running.run("%sandbox run --no-raise -- pgrep -f 'sleep 987'").stdout == ""


def test_a_jobs_wait_has_a_limit_and_the_job_its_own(running):
    running.run("%sandbox run --bg --out job -- sleep 60")
    told = running.run("job.wait(0.1)").error
    assert "DeadlineExceeded" in told
    assert "The above exception" not in told, "one error, and not the one beneath"
    assert "timeout='5': seconds, or None, are needed" in running.run("job.wait('5')").error
    assert running.value("job.running") is True
    running.run("job.stop()")
    running.run("%sandbox run --bg --timeout 0.3 --out job -- sleep 60")
    assert "ProcessTimedOut" in running.run("job.wait()").error


def test_a_job_that_cannot_begin_says_so_at_once(running):
    assert refused(running.run("%sandbox run --bg --cwd /no/such -- true"), "/no/such")


def test_a_job_gets_its_input(running):
    running.run("text = 'quiet'\n%sandbox run --bg --stdin text --out job -- tr a-z A-Z")
    assert running.value("job.wait().stdout") == "QUIET"


def test_the_script_of_a_job_is_there_until_the_job_ends(running):
    scripts = "%sandbox run -- find /tmp -name 'sandbox_nb-*'"
    running.run("%%sandbox run --bg --interpreter /bin/sh --out job\nread line; sleep 0.2; echo end")
    assert running.value("job.wait().stdout") == "end\n"
    assert running.run(scripts).stdout == ""
    running.run("%%sandbox run --bg --interpreter /bin/sh --out job\nsleep 60")
    assert running.run(scripts).stdout.startswith("/tmp/sandbox_nb-")
    running.run("job.stop()")
    assert running.run(scripts).stdout == ""
    assert refused(running.run("%%sandbox run --bg --interpreter cat --cwd /no/such\n1"), "/no/such")
    assert running.run(scripts).stdout == ""


# Files


def test_a_cell_becomes_a_file(running):
    assert running.run("%%sandbox write --mode 750 /root/hello.sh\n#!/bin/sh\necho $0 'hällo'").error == ""
    assert running.run("%sandbox run -- /root/hello.sh").stdout == "/root/hello.sh hällo\n"
    assert refused(running.run("%%sandbox write /no/such/file\nx"), "/no/such/file")
    assert refused(running.run("%sandbox write /root/x"), "takes a cell")
    assert refused(running.run("%%sandbox write --mode 9 /root/x\n1"), "octal")


# Python


@pytest.fixture(scope="module")
def python(running):
    """The module's kernel, with a second machine that has python3."""
    assert running.run("%sandbox start --name py --image python").error == ""
    running.run("%sandbox use sandbox")
    return running


def test_values_cross_as_json_both_ways(python):
    python.run("numbers, names = [1, 2.5, None], {'ä': 'ö'}")
    said = python.run(
        "%%sandbox python --name py --in numbers --in names --out total --out names\n"
        "import platform\ntotal = [n for n in numbers if n]\nnames['node'] = platform.node()\nprint('said')"
    )
    assert (said.stdout, said.error) == ("said\n", "")
    assert python.value("[total, names]") == [[1, 2.5], {"ä": "ö", "node": "py"}]
    assert python.run("%sandbox run --name py -- ls /tmp").stdout == ""


def test_a_traceback_is_that_of_the_cell(python):
    failed = python.run("%%sandbox python --name py\ndef f():\n    return 1 / 0\nf()")
    assert refused(failed, "exit status 1")
    assert failed.stderr.splitlines()[1:4] == [
        '  File "<cell>", line 3, in <module>',
        "    f()",
        '  File "<cell>", line 2, in f',
    ]
    assert "exit status 3" in python.run("%%sandbox python --name py\nraise SystemExit(3)").error
    assert python.run("%%sandbox python --name py --out x\nx = 1\nraise SystemExit(0)").error == ""
    assert "SyntaxError" in python.run("%%sandbox python --name py\n1 +").stderr


def test_what_cannot_cross_is_named(python):
    python.run("import os; value = {1, 2}")
    assert refused(python.run("%%sandbox python --name py --in value\n1"), "--in value: Object of type set")
    assert refused(python.run("%%sandbox python --name py --in vlaue\n1"), "did you mean value")
    assert "--out x: Object of type set" in python.run("%%sandbox python --name py --out x\nx = {1}").stderr
    assert "--out x: the cell does not set it" in python.run("%%sandbox python --name py --out x\ny = 1").stderr


def test_a_guest_without_python_says_what_to_start(python):
    assert refused(python.run("%%sandbox python\n1"), "--image python")
