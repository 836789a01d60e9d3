"""Processors and memory: the guest has what was asked for."""

from __future__ import annotations

import pytest

from sandbox_nb import Sandbox


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize(("cpu", "memory"), [(1, 128), (2, 256), (4, 512)])
def test_the_guest_has_the_processors_and_the_memory_that_were_asked_for(cpu, memory, warm):
    with Sandbox.started(cpu=cpu, memory=memory, warm=warm) as sandbox:
        assert sandbox.run("nproc").stdout == f"{cpu}\n"
        total = int(sandbox.run("grep MemTotal /proc/meminfo").stdout.split()[1]) >> 10
        # The kernel keeps its own 48 MiB, and a sixty-fourth for what it notes of each page.
        assert memory - memory // 40 - 48 < total < memory


def test_every_processor_runs_what_is_bound_to_it():
    with Sandbox.started(cpu=4, memory=512) as sandbox:
        script = "for n in 0 1 2 3; do taskset $((1 << n)) grep Cpus_allowed_list /proc/self/status & done; wait"
        assert sorted(sandbox.run(script, check=True).stdout.split()[1::2]) == ["0", "1", "2", "3"]
