"""Random commands on sorted sets.

ZRANDMEMBER is compared by shape alone; everything else byte for byte. Ranges by name are asked only of sets whose
scores are all equal (and of keys that are no sorted set): with others the real server's answer depends on the random
levels of its skip list.
"""

from __future__ import annotations

from hypothesis import strategies as st

from .compare import compare_as, same_shape
from .strategies_common import (
    Command,
    any_case,
    command,
    floats,
    integers,
    keys,
    options,
    patterns,
    values,
    with_options,
    words,
)
from .wire import Arg, to_bytes

__all__ = ["zset_algebra_commands", "zset_commands", "zset_random_commands"]

compare_as(same_shape, "zrandmember")

scores: st.SearchStrategy[Arg] = st.one_of(
    st.integers(-3, 5), st.integers(-3, 5), st.sampled_from(["0.5", "1.5", "-inf", "inf", "-0"]), floats
)
score_bounds: st.SearchStrategy[Arg] = st.one_of(
    scores, scores.map(lambda score: b"(" + to_bytes(score)), st.sampled_from(["-inf", "+inf", "", "(", "((1", "1e400"])
)
lex_bounds: st.SearchStrategy[Arg] = st.one_of(
    st.sampled_from(["-", "+", "", "x", "-a", "(", "["]),
    words.map(lambda word: b"[" + to_bytes(word)),
    words.map(lambda word: b"(" + to_bytes(word)),
)
limits = options((any_case("LIMIT"), integers, integers), ("LIMIT", 0), most=1)
equal_keys = st.sampled_from(["{t}equal", "{t}equal2"])
text_key = "{t}text"
lex_keys = st.one_of(equal_keys, equal_keys, equal_keys, equal_keys, st.sampled_from([text_key, "{t}none"]))


def _pairs(name: str, targets: st.SearchStrategy[Arg] = keys) -> st.SearchStrategy[Command]:
    pairs = st.lists(st.tuples(scores, words), min_size=1, max_size=5)
    return st.tuples(targets, pairs).map(lambda d: (name, d[0], *(word for pair in d[1] for word in pair)))


add_options = options(
    (any_case("NX"),), (any_case("XX"),), (any_case("GT"),), (any_case("LT"),), (any_case("CH"),), (any_case("INCR"),)
)


def _add_with_options() -> st.SearchStrategy[Command]:
    words_after = st.one_of(
        st.tuples(scores, words),
        st.tuples(scores, words),
        st.tuples(scores, words, scores, words),
        st.tuples(scores, words, scores),
    )
    return st.tuples(keys, add_options, words_after).map(lambda d: ("ZADD", d[0], *d[1], *d[2]))


def _add_equal() -> st.SearchStrategy[Command]:
    return st.tuples(equal_keys, st.lists(words, min_size=1, max_size=6)).map(
        lambda d: ("ZADD", d[0], *(part for word in d[1] for part in (0, word)))
    )


def _multi_pop() -> st.SearchStrategy[Command]:
    drawn = st.tuples(
        st.lists(keys, min_size=1, max_size=3),
        st.one_of(st.none(), st.none(), st.none(), integers),
        st.one_of(any_case("MIN"), any_case("MAX"), st.just("MID")),
        options((any_case("COUNT"), integers), ("COUNT",), ("COUNTS", 1), most=2),
    )
    return drawn.map(lambda d: ("ZMPOP", len(d[0]) if d[1] is None else d[1], *d[0], d[2], *d[3]))


range_words = options(
    (any_case("BYSCORE"),),
    (any_case("BYLEX"),),
    (any_case("REV"),),
    (any_case("LIMIT"), integers, integers),
    (any_case("WITHSCORES"),),
    ("LIMIT", 1),
    ("NOSUCH",),
    most=4,
)
older_words = options((any_case("WITHSCORES"),), (any_case("LIMIT"), integers, integers), ("REV",), ("LIMIT",), most=2)
all_keys = st.one_of(keys, keys, equal_keys)


def _ranges(
    name: str, bounds: st.SearchStrategy[Arg], of: st.SearchStrategy[Arg] = all_keys
) -> st.SearchStrategy[Command]:
    return with_options(command(name, of, bounds, bounds), older_words)


def _typed_range(*before: st.SearchStrategy[Arg] | str) -> st.SearchStrategy[Command]:
    """ZRANGE or ZRANGESTORE with ends that fit its kind of range, of a key that has one answer to it."""
    name, *others = before
    drawn = st.one_of(
        with_options(command(str(name), *others, all_keys, integers, integers), range_words),
        with_options(
            command(str(name), *others, all_keys, score_bounds, score_bounds),
            range_words.map(lambda w: ["BYSCORE", *w]),
        ),
        with_options(
            command(str(name), *others, all_keys, lex_bounds, lex_bounds), range_words.map(lambda w: ["BYLEX", *w])
        ),
    )
    at = 1 + len(others)

    def of_one_answer(both: tuple[Command, Arg]) -> Command:
        words, key = both
        by_name = any(isinstance(word, str) and word.upper() == "BYLEX" for word in words)
        return (*words[:at], key, *words[at + 1 :]) if by_name else words

    return st.tuples(drawn, lex_keys).map(of_one_answer)


scan_options = options(
    (any_case("MATCH"), patterns),
    (any_case("COUNT"), integers),
    ("NOVALUES",),
    ("NOSCORES",),
    ("COUNT",),
)

zset_commands = st.one_of(
    _pairs("ZADD"),
    _pairs("ZADD"),
    _pairs("ZADD"),
    _add_with_options(),
    _add_with_options(),
    _add_equal(),
    _add_equal(),
    command("ZINCRBY", keys, scores, words),
    with_options(command("ZREM", keys), st.lists(words, min_size=1, max_size=3)),
    command("ZCARD", keys),
    command("ZSCORE", keys, words),
    with_options(command("ZMSCORE", keys), st.lists(words, min_size=1, max_size=3)),
    with_options(command("ZRANK", keys, words), options((any_case("WITHSCORE"),), ("FOO",), most=2)),
    with_options(command("ZREVRANK", keys, words), options((any_case("WITHSCORE"),), ("FOO",), most=2)),
    command("ZCOUNT", keys, score_bounds, score_bounds),
    command("ZLEXCOUNT", lex_keys, lex_bounds, lex_bounds),
    _typed_range("ZRANGE"),
    _typed_range("ZRANGE"),
    _typed_range("ZRANGESTORE", keys),
    _ranges("ZREVRANGE", integers),
    _ranges("ZRANGEBYSCORE", score_bounds),
    _ranges("ZREVRANGEBYSCORE", score_bounds),
    _ranges("ZRANGEBYLEX", lex_bounds, lex_keys),
    _ranges("ZREVRANGEBYLEX", lex_bounds, lex_keys),
    command("ZREMRANGEBYRANK", keys, integers, integers),
    command("ZREMRANGEBYSCORE", keys, score_bounds, score_bounds),
    command("ZREMRANGEBYLEX", lex_keys, lex_bounds, lex_bounds),
    with_options(command("ZPOPMIN", keys), st.lists(integers, max_size=1)),
    with_options(command("ZPOPMAX", keys), st.lists(integers, max_size=1)),
    command("ZPOPMIN", keys, 1, 2),
    command("BZPOPMIN", keys, keys, "0.001"),
    command("BZPOPMAX", keys, "1e-3"),
    _multi_pop().map(lambda drawn: ("BZMPOP", "0.001", *drawn[1:])),
    _multi_pop(),
    with_options(command("ZSCAN", keys, st.sampled_from([0, "0", "x", "-1"])), scan_options),
    command("OBJECT", "ENCODING", all_keys),
    command("EXPIRE", keys, 1000),
    command("SET", keys, values),
    command("SET", text_key, values),
    command("DEL", keys),
    command("DEL", equal_keys),
)

# Counts that would draw more than a reply can hold are refused here and not there.
drawable = integers.filter(lambda count: not isinstance(count, int) or count > -1000)

zset_random_commands = st.one_of(
    _pairs("ZADD"),
    _pairs("ZADD"),
    command("ZRANDMEMBER", keys),
    with_options(command("ZRANDMEMBER", keys, drawable), options((any_case("WITHSCORES"),), ("FOO",), most=2)),
    command("ZRANDMEMBER", keys, -(2**63), "WITHSCORES"),
    command("ZRANDMEMBER", keys, -(2**62), "WITHSCORES"),
    command("SET", keys, values),
)


def _of_keys(name: str, *before: st.SearchStrategy[Arg]) -> st.SearchStrategy[Command]:
    tail = options(
        (any_case("WITHSCORES"),),
        (any_case("AGGREGATE"), st.sampled_from(["SUM", "min", "Max", "avg"])),
        (any_case("LIMIT"), integers),
        ("AGGREGATE",),
        ("WEIGHTS", 1),
    )
    counted = st.tuples(
        st.tuples(*before),
        st.lists(st.one_of(keys, equal_keys), min_size=1, max_size=4),
        st.one_of(st.none(), st.none(), st.none(), st.none(), integers),
        st.lists(st.one_of(scores, scores, st.integers(-2, 3)), min_size=4, max_size=4),
        st.booleans(),
        tail,
    )

    def build(
        drawn: tuple[tuple[Arg, ...], list[Arg], Arg | None, list[Arg], bool, list[Arg]],
    ) -> Command:
        first, names, count, weights, weighted, rest = drawn
        weighting: list[Arg] = ["WEIGHTS", *weights[: len(names)]] if weighted else []
        return (name, *first, len(names) if count is None else count, *names, *weighting, *rest)

    return counted.map(build)


zset_algebra_commands = st.one_of(
    _pairs("ZADD"),
    _pairs("ZADD"),
    _pairs("ZADD"),
    _add_equal(),
    with_options(command("SADD", keys), st.lists(words, min_size=1, max_size=4)),
    _of_keys("ZUNION"),
    _of_keys("ZINTER"),
    _of_keys("ZDIFF"),
    _of_keys("ZINTERCARD"),
    _of_keys("ZUNIONSTORE", keys),
    _of_keys("ZINTERSTORE", keys),
    _of_keys("ZDIFFSTORE", keys),
    command("SET", keys, values),
    command("DEL", keys),
)
