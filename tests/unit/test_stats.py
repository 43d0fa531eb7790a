"""What several routers count, as one."""

from __future__ import annotations

from kache.stats import RouterStats, added


def router(age: int, counters: dict[str, object]) -> RouterStats:
    return RouterStats(
        started_ms=1000 - age,
        counters=counters,
        links=[age, 1],
        input_buffer=age,
        output_buffer=10 - age,
        cpu_user_s=0.5,
        cpu_system_s=0.25,
    )


def test_routers_add_up() -> None:
    found = added(
        [
            router(1, {"commands": 2, "ops": 1.5, "errors": {"ERR": 1}, "local_calls": {"ping": (1, 20, 0)}}),
            router(3, {"commands": 5, "ops": 0.5, "errors": {"OOM": 2}, "local_calls": {"ping": [2, 30, 1]}}),
        ]
    )
    assert found.counters == {
        "commands": 7,
        "ops": 2.0,
        "errors": {"ERR": 1, "OOM": 2},
        "local_calls": {"ping": [3, 50, 1]},
    }
    assert (found.started_ms, found.links) == (997, [4, 2])
    assert (found.input_buffer, found.output_buffer) == (3, 9)
    assert (found.cpu_user_s, found.cpu_system_s) == (1.0, 0.5)


def test_one_router_is_taken_as_it_is() -> None:
    alone = router(1, {"commands": 2})
    assert added([alone]) is alone
