"""ACL LOG without a server: what is grouped, what is cut, and how the logs of several processes become one."""

from __future__ import annotations

from kache.acl.log import AclLog, merged


def noted(log: AclLog, now: int, what: bytes = b"k", user: bytes = b"u") -> None:
    log.note(now, "key", "toplevel", what, user, lambda: b"client at %d" % now)


def test_like_refusals_of_a_minute_are_one() -> None:
    log = AclLog(5)
    for now in (0, 30_000, 80_000):
        noted(log, now)
    noted(log, 81_000, b"other")
    noted(log, 82_000)
    assert [(e.count, e.object, e.number, e.created_ms, e.updated_ms, e.client) for e in log.entries()] == [
        (4, b"k", 5, 0, 82_000, b"client at 0"),
        (1, b"other", 6, 81_000, 81_000, b"client at 81000"),
    ]
    noted(log, 142_001)
    assert [(e.count, e.number) for e in log.entries()] == [(1, 7), (4, 5), (1, 6)]


def test_it_is_bounded_in_number_and_in_size() -> None:
    log = AclLog(length=3)
    for number in range(10):
        noted(log, number, b"%d" % number * 1000, b"n" * 1000)
    assert [entry.object[:1] for entry in log.entries()] == [b"9", b"8", b"7"]
    assert {(len(entry.object), len(entry.username)) for entry in log.entries()} == {(128, 128)}
    log.configure(1)
    assert len(log.entries()) == 1
    log.configure(0)
    noted(log, 20)
    assert log.entries() == []


def test_logs_of_several_processes_are_put_together() -> None:
    one, other = AclLog(0), AclLog(1 << 48)
    noted(one, 1_000)
    noted(other, 2_000)
    noted(other, 3_000, b"x")
    noted(one, 90_000)
    found = merged([one.entries(), other.entries()])
    assert [(e.count, e.object, e.created_ms, e.updated_ms) for e in found] == [
        (1, b"k", 90_000, 90_000), (1, b"x", 3_000, 3_000), (2, b"k", 1_000, 2_000),
    ]  # fmt: skip
    assert [entry.count for entry in one.entries()] == [1, 1], "the logs themselves are as they were"
