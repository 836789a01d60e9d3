"""Rates between two looks at a guest."""

from __future__ import annotations

import dataclasses

from sandbox_nb.guest.proto.stats_pb2 import GetResponse, Process
from sandbox_nb.guest.proto.stats_pb2 import Traffic as TrafficMessage
from sandbox_nb.stats import Connection, GuestProcess, Stats, Traffic, rates


def look(**fields):
    known = {"uptime": 10.0, "cpu_busy": 100, "cpu_total": 1000, "memory_total": 4096, "memory_available": 1024}
    return Stats(**{**known, "disks": {}, "networks": {}, "processes": (), **fields})


def process(pid, cpu_time):
    return GuestProcess(pid, 1, "R", "x", cpu_time, 0)


def test_an_answer_of_the_agent():
    response = GetResponse(
        uptime_ns=1_500_000_000,
        cpu_busy=1,
        cpu_total=2,
        memory_total=3,
        memory_available=1,
        disks=[TrafficMessage(name="vda", in_bytes=4, out_bytes=5)],
        processes=[Process(pid=6, parent=1, state="S", command="sh", cpu_time=7, resident=8)],
    )
    found = Stats.of(response)
    assert (found.uptime, found.memory_used) == (1.5, 2)
    assert found.disks == {"vda": Traffic(4, 5)}
    assert found.processes == (GuestProcess(6, 1, "S", "sh", 7, 8),)


def test_rates_are_of_the_time_between():
    before = look(disks={"vda": Traffic(100, 0)}, processes=(process(5, 10), process(6, 0)))
    after = look(
        uptime=12.0,
        cpu_busy=150,
        cpu_total=1200,
        disks={"vda": Traffic(300, 0), "vdb": Traffic(0, 50)},
        networks={"eth0": Traffic(20, 40)},
        processes=(process(5, 60), process(7, 20)),
    )
    found = rates(before, after)
    assert found.cpu == 0.25
    assert found.disk == Traffic(100, 25)
    assert found.network == Traffic(10, 20)
    assert found.processes == {5: 0.25, 7: 0.1}


def test_counters_that_went_back_are_no_negative_rates():
    before = look(disks={"vda": Traffic(100, 100)}, processes=(process(5, 50),))
    after = dataclasses.replace(look(), uptime=11.0, cpu_busy=50, cpu_total=1000, processes=(process(5, 5),))
    found = rates(before, after)
    assert (found.cpu, found.disk, found.processes) == (0.0, Traffic(), {5: 0.0})


def test_the_same_look_twice_divides_by_nothing():
    found = rates(look(), look())
    assert (found.cpu, found.disk) == (0.0, Traffic())


def test_a_connection_tells_what_both_may_still_send():
    stream = {
        "host_port": 1,
        "guest_port": 2,
        "state": "ESTABLISHED",
        "bytes_to_guest": 3,
        "bytes_to_host": 4,
        "credit_of_host": {"free": 5, "crowded": False},
        "credit_of_guest": {"granted": 10, "held": 4},
    }
    assert Connection.of(stream) == Connection(1, 2, "ESTABLISHED", 3, 4, 5, 6)
