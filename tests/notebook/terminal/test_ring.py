from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandbox_nb.notebook.terminal_ring import Ring

chunks = st.lists(st.binary(max_size=40), max_size=30)


@given(chunks, st.integers(1, 100))
def test_it_keeps_the_last_bytes_and_knows_their_numbers(pieces, limit):
    ring = Ring(limit)
    for piece in pieces:
        ring.append(piece)
    stream = b"".join(pieces)
    assert ring.end == len(stream)
    assert ring.start == max(0, len(stream) - limit)
    assert ring.read(ring.start, limit) == stream[ring.start :]


@given(chunks, st.integers(1, 100), st.integers(0, 1300))
def test_a_reader_goes_on_where_it_was_or_at_the_start_of_a_line(pieces, limit, at):
    ring = Ring(limit)
    for piece in pieces:
        ring.append(piece)
    stream = b"".join(pieces)
    resumed = ring.resume(at)
    assert ring.start <= resumed <= ring.end
    if at >= ring.start:
        assert resumed == min(at, ring.end)
    else:
        assert resumed == ring.start or stream[resumed - 1 : resumed] == b"\n"


def test_a_line_that_is_longer_than_the_search_does_not_stop_a_reader():
    ring = Ring(10_000)
    ring.append(b"x" * 20_000)
    assert ring.resume(0) == ring.start
