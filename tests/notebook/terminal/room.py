"""A session with the test at both of its ends: a source made of queues, and a page made of a list."""

from __future__ import annotations

import collections
import queue
import threading
import time

from sandbox_nb.notebook.terminal_session import Session


class Source:
    """Puts out what the test gives it, and writes down what it is told."""

    def __init__(self):
        self.outputs = queue.Queue()
        self.calls = queue.Queue()
        self.reads = 0
        self.closed = threading.Event()

    def open(self, rows, cols):
        self.calls.put(("open", rows, cols))

    def read(self):
        self.reads += 1
        data = self.outputs.get()
        if isinstance(data, Exception):
            raise data
        return data

    def write(self, data):
        self.calls.put(("write", data))

    def resize(self, rows, cols):
        self.calls.put(("resize", rows, cols))

    def close(self):
        self.closed.set()
        self.outputs.put(b"")

    def ending(self):
        return "the test said so"

    def call(self):
        return self.calls.get(timeout=10)


class Page:
    """A page with one view; it acknowledges only when the test says so."""

    def __init__(self, name="v"):
        self.name = name
        self.messages = []
        self.bytes = {}
        self.changed = threading.Condition()

    def send(self, message, data):
        with self.changed:
            self.messages.append(message)
            if message["kind"] == "output":
                self.bytes |= {message["at"] + n: byte for n, byte in enumerate(data)}
            self.changed.notify_all()

    def wait(self, condition, timeout=10):
        with self.changed:
            assert self.changed.wait_for(condition, timeout), self.messages[-5:]

    def kinds(self):
        return [message["kind"] for message in self.messages]

    def last(self, kind):
        return next(message for message in reversed(self.messages) if message["kind"] == kind)

    @property
    def text(self):
        return bytes(self.bytes[n] for n in sorted(self.bytes))


class Room:
    def __init__(self):
        self.source, self.page = Source(), Page()
        self.ended = threading.Event()
        self.typed = collections.Counter()
        self.session = Session(self.source, self.send, self.ended.set)
        self.acknowledges = False

    def send(self, message, data):
        self.page.send(message, data)
        if self.acknowledges and message["kind"] == "output":
            self.say("ack", view="later", drawn=message["at"] + len(data))

    def say(self, kind, data=b"", view="v", **fields):
        self.session.receive({"kind": kind, "view": view, **fields}, data)

    def hello(self, view="v", rows=24, cols=80, at=0, **fields):
        self.say("hello", view=view, rows=rows, cols=cols, at=at, **fields)

    def type(self, data, view="v"):
        self.say("input", data, view, at=self.typed[view])
        self.typed[view] += len(data)


def wait_for_threads(timeout=10):
    """Wait until no session has a thread any more."""
    deadline = time.monotonic() + timeout
    while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("terminal-")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
