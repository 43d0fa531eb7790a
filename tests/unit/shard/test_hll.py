"""The HyperLogLog representation: estimates, opcodes, patches, and what is refused."""

from __future__ import annotations

import random

import pytest

from kache.shard.engine import hll

HEADER = b"HYLL\x01" + bytes(10) + b"\x80"


def elements(first: int, last: int) -> list[bytes]:
    return [b"e%d" % number for number in range(first, last)]


def added(value: bytes, new: list[bytes]) -> bytes:
    result = hll.add(value, new)
    return value if result is None else result[0]


def registers(value: bytes) -> list[int]:
    """An independent reader of both encodings."""
    body = value[16:]
    if value[4] == 0:
        bits = int.from_bytes(body, "little")
        return [bits >> 6 * index & 63 for index in range(16384)]
    found: list[int] = []
    position = 0
    while position < len(body):
        op = body[position]
        if op & 0x80:
            found += [(op >> 2 & 31) + 1] * ((op & 3) + 1)
        elif op & 0x40:
            position += 1
            found += [0] * (((op & 63) << 8 | body[position]) + 1)
        else:
            found += [0] * (op + 1)
        position += 1
    assert len(found) == 16384
    return found


def test_an_empty_value_counts_nothing() -> None:
    assert hll.count([hll.create()]) == 0
    assert hll.count([]) == 0
    assert set(registers(hll.create())) == {0}


@pytest.mark.parametrize(("size", "expected"), [(3, 3), (10, 10), (1000, 1008), (10000, 9973)])
def test_counts_are_the_real_servers(size: int, expected: int) -> None:
    assert hll.count([added(hll.create(), elements(0, size))]) == expected


def test_adding_again_changes_nothing() -> None:
    value = added(hll.create(), elements(0, 500))
    assert hll.add(value, elements(0, 500)) is None
    assert hll.add(hll.create(), []) is None


def test_the_encoding_does_not_change_what_is_stored() -> None:
    seeded = random.Random(3)
    value, dense = hll.create(), b"HYLL" + bytes(12) + bytes(12288)
    became_dense_at = 0
    for step in range(3000):
        new = [b"%d" % seeded.randrange(10**6)]
        value, dense = added(value, new), added(dense, new)
        if not became_dense_at and value[4] == 0:
            became_dense_at = step
        if step % 100 == 0:
            assert registers(value) == registers(dense)
            assert len(value) <= hll.SPARSE_LIMIT or value[4] == 0
    assert became_dense_at > 500
    assert value[16:] == dense[16:]


def test_patches_turn_the_old_value_into_the_new_one() -> None:
    value = added(b"HYLL" + bytes(12) + bytes(12288), elements(0, 100))
    result = hll.add(value, elements(100, 104))
    assert result is not None
    changed, patches = result
    assert patches is not None
    patched = bytearray(value)
    for offset, data in patches:
        patched[offset : offset + len(data)] = data
    assert bytes(patched) == changed
    many = hll.add(value, elements(1000, 2000))
    assert many is not None
    assert many[1] is None


def test_merging_is_the_union() -> None:
    left, right = added(hll.create(), elements(0, 300)), added(hll.create(), elements(200, 400))
    both = hll.merge(hll.create(), [left, right])
    assert registers(both) == registers(added(left, elements(200, 400)))
    assert hll.count([left, right]) == hll.count([both])
    dense = added(hll.create(), elements(0, 5000))
    assert dense[4] == 0
    assert hll.merge(left, [dense])[4] == 0


def test_the_cached_count() -> None:
    value = hll.create()
    assert hll.cached_count(value) is None
    assert hll.cached_count(value[:8] + (42).to_bytes(8, "little") + value[16:]) == 42


@pytest.mark.parametrize(
    "body", [b"", b"\x7f", b"\x7f\xfe", b"\x7f\xff\x00", b"\x80\x7f\xff", b"\x3f" * 255, bytes(16385)]
)
def test_corrupt_opcodes_are_refused(body: bytes) -> None:
    with pytest.raises(hll.CorruptValue):
        hll.count([HEADER + body])
    with pytest.raises(hll.CorruptValue):
        hll.merge(hll.create(), [HEADER + body])


@pytest.mark.parametrize("value", [b"", b"HYLL", b"HYLM" + bytes(14), b"HYLL\x02" + bytes(12), b"HYLL" + bytes(100)])
def test_what_does_not_look_like_one(value: bytes) -> None:
    assert not hll.looks_valid(value)
    with pytest.raises(hll.CorruptValue):
        hll.add(value, [b"x"])


def test_one_byte_for_every_register_is_valid() -> None:
    longest = HEADER + bytes(16384)
    value = added(longest, elements(0, 50))
    assert hll.count([value]) == hll.count([added(hll.create(), elements(0, 50))])
