"""Walrus' streams and consumer groups, as its documentation uses them. Run: python walrus_groups.py PORT."""

from __future__ import annotations

import sys

import walrus


def main() -> None:
    db = walrus.Database(port=int(sys.argv[1]))
    db.flushall()
    stream = db.Stream("stream-a")
    numbers = [stream.add({"message": f"{number}"}) for number in range(3)]
    assert len(stream) == 3
    assert [data[b"message"] for _, data in stream[numbers[1] :]] == [b"1", b"2"]
    assert [number for number, _ in stream.range(count=1)] == numbers[:1]
    assert stream.trim(2, approximate=False) == 1
    assert stream.info()["length"] == 2

    group = db.consumer_group("demo-cg", ["stream-a", "stream-b"])
    group.create()
    group.set_id("0")
    stream.add({"message": "new a"})
    db.Stream("stream-b").add({"message": "new b"})
    found = dict(group.read(count=10))
    assert [data[b"message"] for _, data in found[b"stream-a"]] == [b"1", b"2", b"new a"]
    assert [data[b"message"] for _, data in found[b"stream-b"]] == [b"new b"]
    assert not group.read(count=1, block=10)
    pending = group.stream_a.pending()
    assert [each["message_id"] for each in pending] == [number for number, _ in found[b"stream-a"]]
    assert group.stream_a.ack(pending[0]["message_id"]) == 1
    other = group.consumer("other")
    claimed = other.stream_a.claim(pending[1]["message_id"], min_idle_time=0)
    assert claimed and len(group.stream_a.pending()) == 2
    assert group.stream_a.consumers_info() if hasattr(group.stream_a, "consumers_info") else True
    group.destroy()

    merged = db.time_series("series", ["one", "two"])
    merged.create()
    merged.set_id("0")
    merged.one.add({"n": 1})
    merged.two.add({"n": 2})
    assert {message.stream for message in merged.read()} == {"one", "two"}
    print(f"walrus {getattr(walrus, '__version__', '')}: fine")


main()
