"""The dashboard without a page: what it tells, when it asks, what it leaves."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time

import pytest

from sandbox_nb import Sandbox
from sandbox_nb.notebook import dashboard, dashboard_watch
from sandbox_nb.notebook.dashboard_view import MAX_PROCESSES, Seen, size
from sandbox_nb.notebook.dashboard_watch import Watch
from sandbox_nb.stats import Connection, GuestProcess, Rates, Stats, Traffic


def seen(portrait, processes=(), **fields):
    stats = Stats(1.0, 1, 2, 100 << 20, 60 << 20, {}, {}, tuple(processes))
    rates = Rates(0.5, Traffic(2048, 0), Traffic(0, 1), {one.pid: one.pid / 1000 for one in processes})
    return Seen(portrait, stats, [(rates, stats)] * 3, **fields)


def process(pid):
    return GuestProcess(pid, 1, "S", f"command <{pid}>", 0, 4096)


@pytest.fixture(scope="module")
def portrait():
    return Sandbox("web").portrait()


def test_sizes_are_said_as_people_say_them():
    assert [size(number) for number in (0, 812, 1500, 150 * 1024, 5 << 30, 5 << 40)] == [
        "0 B", "812 B", "1.5 KiB", "150 KiB", "5.0 GiB", "5120 GiB",
    ]  # fmt: skip


def test_the_busiest_processes_are_listed_with_a_button_when_it_is_live(portrait):
    found = seen(portrait, [process(pid) for pid in range(2, 30)], asked_to_end=frozenset({29}))
    live = found.parts(live=True)["processes"]
    assert live.count("<tr>") == MAX_PROCESSES + 1
    assert live.index("&lt;29&gt;") < live.index("&lt;28&gt;")
    assert "&lt;2&gt;" not in live
    assert "and 8 more" in live
    assert 'data-end="29" aria-label="kill process 29">kill<' in live
    assert 'data-end="28" aria-label="end process 28">end<' in live
    assert "<button" not in found.parts(live=False)["processes"]


def test_plots_connections_and_text(portrait):
    found = seen(portrait, connections=[Connection(7, 1026, "ESTABLISHED", 1024, 0, 2048, 1 << 20)])
    parts = found.parts(live=True)
    assert parts["plots"].count("<svg") == 4
    assert "50 %" in parts["plots"]
    assert "2.0 KiB/s" in parts["plots"]
    assert "7:1026" in parts["streams"]
    assert "1.0 MiB" in parts["streams"]
    assert "memory 40.0 MiB of 100 MiB" in str(found)


def test_of_a_machine_that_does_not_run_only_the_host_is_asked(portrait):
    assert "plots" not in Seen(portrait).parts(live=True)
    assert str(Seen(portrait)).startswith("web: new")


@pytest.fixture
def live(monkeypatch):
    """A dashboard of a machine that does not run, what it sends, and what it asks of its watch."""
    sent, asked = [], []
    monkeypatch.setattr(dashboard.Dashboard, "send", lambda self, message: sent.append(message))
    made = dashboard.Dashboard(Sandbox("web"))
    monkeypatch.setattr(made._watch, "look", lambda: asked.append("look"))
    monkeypatch.setattr(made._watch, "end_process", lambda pid: asked.append(pid))
    yield made, sent, asked
    made.close()


def test_a_page_that_opens_gets_all_and_then_what_is_new(live, portrait):
    page, sent, asked = live
    page._receive(None, {"kind": "hello", "view": "a"}, [])
    assert [(message["kind"], message["view"]) for message in sent] == [("page", "a")]
    assert "web" in sent.pop()["html"]
    page._tell(seen(portrait, [process(2)]))
    parts = sent.pop()["parts"]
    assert "command &lt;2&gt;" in parts["processes"]
    page._tell(seen(portrait, [process(2)]))
    assert sent == []
    page._tell(seen(portrait))
    assert sent.pop()["parts"].get("processes") == ""
    assert asked == ["look"]


def test_a_view_that_comes_later_changes_nothing_for_those_that_are_there(live, portrait):
    page, sent, _ = live
    page._tell(seen(portrait, [process(2)]))
    page._receive(None, {"kind": "hello", "view": "a"}, [])
    page._receive(None, {"kind": "hello", "view": "b"}, [])
    assert [message.get("view") for message in sent] == [None, "a", "b"]
    assert "command &lt;2&gt;" in sent[-1]["html"]
    page._tell(seen(portrait, [process(3)]))
    assert set(sent[-1]["parts"]) == {"processes"}


def test_what_is_new_comes_behind_the_page_that_is_without_it(live, portrait, monkeypatch):
    page, sent, _ = live
    news = threading.Thread(target=page._tell, args=[seen(portrait, [process(2)])])

    def send(self, message):
        if message["kind"] == "page":
            news.start()
            news.join(0.2)
        sent.append(message)

    monkeypatch.setattr(dashboard.Dashboard, "send", send)
    page._receive(None, {"kind": "hello", "view": "a"}, [])
    news.join()
    assert [message["kind"] for message in sent] == ["page", "parts"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"kind": "look"}, ["look"]),
        ({"kind": "hello"}, []),
        ({"kind": "end", "pid": 7}, [7]),
        ({"kind": "end", "pid": 1}, []),
        ({"kind": "end", "pid": "7"}, []),
        ({"kind": "end"}, []),
        ({"kind": "explode"}, []),
        ({}, []),
    ],
)
def test_of_what_a_page_says_only_what_makes_sense_is_done(live, message, expected):
    page, sent, asked = live
    page._receive(None, message, [])
    assert asked == expected
    assert sent == []


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.vm
def test_the_guest_is_asked_only_while_somebody_looks(monkeypatch):
    monkeypatch.setattr(dashboard_watch, "INTERVAL", 0.2)
    monkeypatch.setattr(dashboard_watch, "LEASE", 1.0)
    told = []
    with Sandbox.started(name="own") as sandbox, sandbox.trace() as lens:
        watch = Watch(sandbox, told.append)

        def asked():
            return len(lens.crossings(layers=["ttrpc"], match="Stats.Get request"))

        time.sleep(0.5)
        assert asked() == 0
        watch.look()
        until(lambda: len(told) >= 3)
        assert told[-1].history
        assert told[-1].connections
        until(lambda: watch._looking.future.done())
        after, number = asked(), len(told)
        time.sleep(1.0)
        assert (asked(), len(told)) == (after, number)
        watch.look()
        until(lambda: len(told) > number)


@pytest.mark.vm
def test_a_process_is_asked_to_end_and_the_second_time_ended(monkeypatch):
    monkeypatch.setattr(dashboard_watch, "INTERVAL", 0.2)
    told = []
    with Sandbox.started(name="own") as sandbox:
        watch = Watch(sandbox, told.append)
        with sandbox.popen("trap '' TERM; echo up; while :; do sleep 0.1; done") as stubborn:
            assert stubborn.stdout.readline() == b"up\n"
            watch.look()
            until(lambda: told and any(one.pid == stubborn.pid for one in told[-1].stats.processes))
            watch.end_process(stubborn.pid)
            until(lambda: stubborn.pid in told[-1].asked_to_end)
            watch.end_process(stubborn.pid)
            assert stubborn.wait(20) == -9
        watch.look()
        sandbox.stop()
        until(lambda: told[-1].portrait.state == "stopped" and told[-1].stats is None)


@pytest.mark.vm
def test_a_kernel_that_ends_leaves_what_was_seen_last(kernel):
    kernel.run("%sandbox start")
    (bundle,) = kernel.run("%sandbox status --live").displays
    assert set(bundle) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert bundle["text/plain"].startswith("sandbox: running; 1 processor, 256 MiB")
    kernel.client.shutdown(restart=True)
    found = []
    while not any(message["msg_type"] == "update_display_data" for message in found):
        try:
            found.append(kernel.client.get_iopub_msg(timeout=60))
        except queue.Empty:
            pytest.fail(f"nothing was left: {found}")
    left = found[-1]["content"]["data"]
    assert set(left) == {"text/plain", "text/html"}
    assert "is gone" in left["text/html"]
    assert "<button" not in left["text/html"]


@pytest.mark.vm
def test_in_plain_ipython_dashboard_and_panel_are_text():
    script = "%load_ext sandbox_nb\n%sandbox config --image python\n%sandbox start\n%sandbox status --live\n"
    command = [sys.executable, "-m", "IPython", "--no-banner", "--simple-prompt", "--colors=NoColor"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=100)
    assert "%sandbox start --image python" in done.stdout
    assert "sandbox: running; 1 processor, 256 MiB, image base" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.vm
def test_a_sandbox_shows_itself(running):
    sandbox = "get_ipython().find_line_magic('sandbox').__self__.session.find(None)"
    (bundle,) = running.run(sandbox).displays
    assert "sandbox-nb-portrait" in bundle["text/html"]
    assert "<svg" in bundle["text/html"]
