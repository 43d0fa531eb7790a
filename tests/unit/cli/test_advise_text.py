"""What `kache advise` makes of the shards' figures: sums, sentences, the plot."""

from __future__ import annotations

from typing import Any

import pytest

from kache.cli.advise import advised, merged, plot, text


def shard(index: int = 0, reads: float = 100_000, **more: Any) -> dict[str, Any]:
    return {
        "shard": index, "policy": "allkeys-lru", "follows": "allkeys-lru", "maxmemory": 1 << 30, "used": 1 << 29,
        "reads": reads, "sampled": 5000,
        "misses": {
            "lru": [part * reads for part in (0.6, 0.5, 0.4, 0.3, 0.2, 0.199)],
            "lfu": [part * reads for part in (0.6, 0.5, 0.4, 0.3, 0.2, 0.199)],
            "s3fifo": [part * reads for part in (0.5, 0.4, 0.3, 0.2, 0.15, 0.149)],
        },
        "bytes": 1000.0, "unread": 250.0, "evicted": 400.0, "evicted_unread": 300.0,
        "prefixes": [("user:", 700.0, 30.0), ("", 300.0, 0.0)],
    } | more  # fmt: skip


def test_shards_are_put_together_by_their_reads() -> None:
    other = shard(1, reads=300_000, misses={name: [0.0] * 6 for name in ("lru", "lfu", "s3fifo")})
    advice = merged([shard(), other])
    assert advice["curves"]["lru"][3] == {"bytes": 1 << 30, "misses": pytest.approx(0.3 / 4)}
    assert advice["curves"]["lru"][0]["bytes"] == 1 << 27
    assert advice["dead"] == {"held_unread": 0.25, "evicted_unread": 0.75}
    assert advice["prefixes"][0] == {
        "prefix": "user:",
        "bytes": 1400,
        "hits": 60,
        "hits_per_kib": pytest.approx(1024 * 60 / 1400),
    }
    assert advice["reads"] == 400_000 and advice["sampled"] == 10_000


def test_without_a_limit_the_present_size_is_that_of_the_data() -> None:
    assert merged([shard(maxmemory=0), shard(1, maxmemory=0)])["bytes"] == 1 << 30


def test_it_advises_the_better_policy_and_the_size_that_is_enough() -> None:
    lines = advised(merged([shard()]))
    assert "CONFIG SET maxmemory-policy allkeys-s3fifo" in lines[0] and "10.0 points fewer than with lru" in lines[0]
    assert lines[1] == "2gb would save 5.0 points of misses with s3fifo; more than that buys nothing."
    assert merged([shard()])["advice"] == lines and "advice" not in merged([shard(sampled=10)])


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        ((0.6, 0.5, 0.4, 0.3, 0.2, 0.1), "Every doubling saves misses"),
        ((0.6, 0.5, 0.4, 0.3, 0.3, 0.3), "More memory buys nothing with lru; half as much would cost 10.0 points."),
        ((0.3, 0.3, 0.3, 0.3, 0.3, 0.3), "128mb would do as well"),
    ],
)
def test_it_says_what_more_memory_buys(curve: tuple[float, ...], said: str) -> None:
    misses = {name: [100_000 * part for part in curve] for name in ("lru", "lfu", "s3fifo")}
    assert any(said in line for line in advised(merged([shard(misses=misses)])))


def test_the_plot_has_every_size_and_falls_to_the_right() -> None:
    lines = plot(merged([shard()])).splitlines()
    assert all(name in lines[-2] for name in ("128mb", "256mb", "512mb", "1gb", "2gb", "4gb"))
    assert lines[0].lstrip().startswith("60.0 %") and "S lru" not in lines[-1]
    rows = [number for number, line in enumerate(lines) for mark in line.partition("|")[2] if mark in "S"]
    assert rows == sorted(rows) and len(rows) == 6
    assert max(map(len, lines)) < 80


def test_too_little_is_said_to_be_too_little() -> None:
    advice = merged([shard(sampled=10), {"shard": 1, "reason": "it is down"}])
    shown = text(advice)
    assert "Too little is known yet" in shown and "shard 1 does not answer: it is down" in shown
    assert "Too little" in text(merged([{"shard": 0, "policy": "allkeys-lru", "follows": "allkeys-lru", "used": 0}]))


def test_everything_is_shown() -> None:
    shown = text(merged([shard(policy="allkeys-auto", follows="s3fifo")]))
    assert "Now 1gb and allkeys-auto, which follows s3fifo: 20.0 % of the reads miss" in shown
    assert "Dead weight: 25 % of the memory" in shown and "75 % of what LRU evicts was never read" in shown
    assert "user:" in shown and "(others)" in shown


def test_what_has_missed_stands_beside_what_was_simulated() -> None:
    advice = merged([shard(keyspace_hits=600, keyspace_misses=200), shard(1, keyspace_hits=200, keyspace_misses=0)])
    assert advice["missed"] == 0.2
    assert "30.0 % of the reads miss, as simulated; 20.0 % have missed since the start" in text(advice)
    assert merged([shard()])["missed"] is None and "have missed" not in text(merged([shard()]))


def test_hits_of_prefixes_add_up_to_those_of_the_shard() -> None:
    """A hot key in the sample would otherwise count for many that are not."""
    advice = merged([shard(keyspace_hits=800, keyspace_misses=200, prefixes=[("a:", 1.0, 3e5), ("b:", 1.0, 1e5)])])
    assert [row["hits"] for row in advice["prefixes"]] == [60_000, 20_000]


def test_without_a_limit_sizes_are_those_that_were_simulated() -> None:
    advice = merged([shard(maxmemory=0, base=3 << 28), shard(1, maxmemory=0, base=3 << 28)])
    assert [point["bytes"] for point in advice["curves"]["lru"]][3:] == [3 << 29, 3 << 30, 3 << 31]
    shown = text(advice)
    assert "Now 1gb of data and no limit: 30.0 %" in shown and "CONFIG SET" not in shown


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("volatile-lru", "10.0 points fewer than with lru: CONFIG SET maxmemory-policy volatile-s3fifo."),
        ("volatile-ttl", "volatile-ttl is not simulated. With s3fifo 20.0 % would miss at the present size"),
        ("allkeys-random", "CONFIG SET maxmemory-policy allkeys-s3fifo."),
        ("noeviction", "Nothing is evicted under noeviction"),
    ],
)
def test_the_policy_that_it_advises_evicts_the_same_keys(policy: str, said: str) -> None:
    advice = merged([shard(policy=policy, follows=policy)])
    assert said in advice["advice"][0]
    assert ("evict keys without a TTL, too" in " ".join(advice["advice"])) == policy.startswith("volatile")
    as_what = "as simulated." if policy == "volatile-lru" else "as simulated with lru."
    assert as_what in text(advice)


def test_it_says_why_more_is_missed_than_was_simulated() -> None:
    refused = merged([shard(refused=1000), shard(1, refused=234)])["advice"]
    assert any(line.startswith("1,234 writes were refused because memory was full (OOM).") for line in refused)
    assert not any("OOM" in line for line in merged([shard()])["advice"])
    flat = {name: [100_000 * part for part in (0.6, 0.5, 0.4, 0.3, 0.3, 0.3)] for name in ("lru", "lfu", "s3fifo")}
    full = merged([shard(policy="noeviction", follows="noeviction", misses=flat, refused=1)])["advice"]
    assert full[1] == "Half as much memory would cost 10.0 points with lru." and "OOM" in full[2]


def test_memory_that_is_not_full_yet_is_said_to_tell_little() -> None:
    assert merged([shard(used=1 << 29)])["advice"][-1].startswith("Only 512mb are in use: if the data still grows")
    for other in (shard(used=1 << 30), shard(maxmemory=0), shard(policy="noeviction", follows="noeviction")):
        assert not any("are in use" in line for line in merged([other])["advice"])


def test_what_auto_chooses_by_itself_is_not_advised() -> None:
    chosen = merged([shard(policy="allkeys-auto", follows="lru")])["advice"]
    assert not any("CONFIG SET" in line for line in chosen)
    misses = shard()["misses"] | {"lfu": [10_000.0] * 6}
    other = merged([shard(policy="volatile-auto", follows="lru", misses=misses)])["advice"]
    assert "CONFIG SET maxmemory-policy volatile-lfu." in other[0]
