from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_nb.vsock import packet
from sandbox_nb.vsock.packet import HEADER_SIZE, Header, unpack

u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))


@given(st.builds(Header, u64, u64, u32, u32, u32, u16, u16, u32, u32, u32))
def test_a_header_survives_the_wire(header):
    assert len(header.pack()) == HEADER_SIZE
    assert unpack(header.pack()) == header


def test_a_header_lies_on_the_wire_as_virtio_says():
    header = Header(3, 2, 0x01020304, 0x1112, 5, packet.STREAM, packet.RW, 0, 0x40000, 7)
    assert header.pack().hex(" ", 4) == (
        "03000000 00000000 02000000 00000000 04030201 12110000 05000000 01000500 00000000 00000400 07000000"
    )


def test_too_few_bytes_are_no_header():
    with pytest.raises(struct.error):
        unpack(bytes(HEADER_SIZE - 1))


def test_a_header_reads_as_one_line():
    header = Header(2, 3, 1 << 30, 1025, 5, packet.STREAM, packet.RW, 0, 64, 7)
    assert str(header) == "2:1073741824 > 3:1025 RW len=5 flags=0 buf_alloc=64 fwd_cnt=7"
    assert "op 77" in str(header._replace(op=77))
