"""A function over many items, each in a fresh machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading

import pytest

from sandbox_nb import (
    FailedPrecondition,
    InvalidArgument,
    Options,
    ProcessFailed,
    SandboxPool,
    Stopped,
    in_fresh_sandbox,
)


def count_words(sandbox, text):
    return int(sandbox.run("wc -w", input=text, check=True).stdout)


@pytest.fixture(scope="module")
def pool():
    with SandboxPool(2) as pool:
        yield pool


def test_results_come_in_the_order_of_the_items(pool):
    assert list(pool.map(count_words, ["a", "a b", "a b c"])) == [1, 2, 3]


def test_every_item_has_a_machine_of_its_own_that_is_gone_afterwards(pool):
    seen = []

    def leave_a_mark(sandbox, item):
        seen.append(sandbox)
        before = sandbox.run("ls /tmp").stdout
        sandbox.write("/tmp/mark", str(item))
        return before

    assert list(pool.map(leave_a_mark, range(3))) == ["", "", ""]
    assert len({id(sandbox) for sandbox in seen}) == 3
    for sandbox in seen:
        with pytest.raises(FailedPrecondition, match="stopped"):
            sandbox.run("true")


def test_one_failure_hides_no_other_result(pool):
    told = []

    def exit_with(sandbox, status):
        return sandbox.run(["sh", "-c", f"exit {status}"], check=True).returncode

    first, second, third = pool.results(
        exit_with, [0, 7, 0], progress=lambda stage, done, total: told.append((done, total))
    )
    assert (first, third) == (0, 0)
    assert isinstance(second, ProcessFailed)
    assert second.returncode == 7
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_commands_run_each_in_its_machine(pool):
    done = list(pool.run(["echo a; touch /tmp/x", ["ls", "/tmp/x"]]))
    assert done[0].stdout == "a\n"
    assert done[1].returncode != 0


def test_submit_passes_arguments_by_place_and_name(pool):
    def join(sandbox, left, *, right):
        return sandbox.run(["echo", left, right]).stdout

    assert pool.submit(join, "a", right="b").result(timeout=60) == "a b\n"


def test_no_more_machines_than_its_size():
    at_once, most, lock = [0], [0], threading.Lock()
    both_are_there = threading.Barrier(2, timeout=60)

    def stay(sandbox, _):
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        both_are_there.wait()
        sandbox.run("true")
        with lock:
            at_once[0] -= 1

    with SandboxPool(2, cpu=1, memory=200) as pool:
        list(pool.map(stay, range(4)))
    assert most[0] == 2


def test_wrong_options_are_told_at_once():
    with pytest.raises(InvalidArgument, match="memroy"):
        SandboxPool(2, memroy=512)
    with pytest.raises(InvalidArgument, match="without memory"):
        SandboxPool(2, cpu=2)
    for size in (0, -1, "2", True):
        with pytest.raises(InvalidArgument, match="size="):
            SandboxPool(size)


def test_one_command_is_no_list_of_them(pool):
    with pytest.raises(InvalidArgument, match=r"commands='echo 1': a list .*\['echo 1'\]"):
        pool.run("echo 1")
    with pytest.raises(InvalidArgument, match="commands=5: a list"):
        pool.run(5)


def test_progress_that_nobody_can_be_told_is_refused_before_anything_runs(pool):
    with pytest.raises(InvalidArgument, match="progress=5"):
        pool.results(lambda sandbox, item: pytest.fail("ran"), [1], progress=5)


def test_a_pool_takes_options_from_a_file():
    with SandboxPool(1, Options.from_toml("cpu = 2\nmemory = 300")) as pool:
        assert [done.stdout for done in pool.run(["nproc"])] == ["2\n"]


def test_what_has_not_begun_can_be_cancelled():
    begun = threading.Event()

    def begin(sandbox, _):
        begun.set()
        return sandbox.run("sleep 0.2; echo done").stdout

    with SandboxPool(1) as pool:
        futures = [pool.submit(begin, number) for number in range(3)]
        begun.wait()
        pool.shutdown(cancel_futures=True)
    assert futures[0].result() == "done\n"
    assert all(future.cancelled() for future in futures[1:])
    with pytest.raises(RuntimeError):
        pool.submit(begin, 0)


def test_an_interrupt_drops_what_has_not_begun():
    def interrupt(*_):
        raise KeyboardInterrupt

    begun = []
    with SandboxPool(1) as pool, pytest.raises(KeyboardInterrupt):
        pool.results(lambda sandbox, item: begun.append(item), range(20), progress=interrupt)
    assert len(begun) < 5


INTERRUPTED = """
from sandbox_nb import SandboxPool

def stay(sandbox, item):
    sandbox.run("echo up; while true; do :; done", stream=True)

try:
    with SandboxPool(1) as pool:
        {waiting}
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    "waiting", ["pool.results(stay, [1, 2])", "list(pool.map(stay, [1]))", "pool.submit(stay, 1)"]
)
def test_an_interrupt_stops_what_is_at_work_and_ends_the_block(waiting):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.format(waiting=waiting)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "interrupted\n"


def test_an_interrupt_takes_back_a_start():
    pool = SandboxPool(1)
    future = pool.submit(count_words, "a")
    while not future.running():
        pass
    with pytest.raises(KeyboardInterrupt), pool:
        raise KeyboardInterrupt
    assert isinstance(future.exception(), Stopped)


def test_any_other_error_waits_for_what_is_at_work():
    pool = SandboxPool(1)
    future = pool.submit(count_words, "a b")
    with pytest.raises(ZeroDivisionError), pool:
        raise ZeroDivisionError
    assert future.result() == 2


def test_without_a_pool_the_same_function_runs_anywhere():
    assert in_fresh_sandbox(count_words, cpu=1, memory=200)("a b") == 2
    with pytest.raises(InvalidArgument):
        in_fresh_sandbox(count_words, memroy=1)("a")


CLUSTER = """
import json
from distributed import Client, LocalCluster
from sandbox_nb import in_fresh_sandbox

def where(sandbox, text):
    import os
    return os.getpid(), int(sandbox.run("wc -w", input=text, check=True).stdout)

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            print(json.dumps(client.gather(client.map(in_fresh_sandbox(where), ["a", "a b", "a b c", "a b c d"]))))
"""


def test_the_same_function_runs_on_a_cluster_of_processes(tmp_path):
    """In a process of its own: dask's loops and warnings are not ours to keep tidy."""
    pytest.importorskip("distributed")
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [words for _, words in answers] == [1, 2, 3, 4]
    assert len({pid for pid, _ in answers}) == 2
