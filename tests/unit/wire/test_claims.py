"""Cells that exactly one of several processes gets."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from kache.cluster import claims as page
from kache.cluster import pages
from kache.wire.claims import CELLS_OF_A_ROUTER, ROUTER, Claims


def opened(claims: Claims) -> tuple[int, int]:
    found = claims.open()
    assert found is not None
    return found


def test_one_gets_it_and_nobody_else() -> None:
    claims = Claims(None, 0)
    cell, claim = opened(claims)
    assert claims.owner(cell) == -1
    assert claims.take(cell, claim, 3)
    assert claims.owner(cell) == 3
    assert not claims.take(cell, claim, 3) and not claims.take(cell, claim, 0) and not claims.take(cell, claim, ROUTER)
    claims.close(cell)
    assert not claims.take(cell, claim, 0)
    again, fresh = opened(claims)
    assert again == cell and fresh > claim
    assert not claims.take(cell, claim, 0), "of the time before"
    assert claims.take(cell, fresh, ROUTER) and claims.owner(cell) == ROUTER


def test_a_closed_cell_that_nobody_had_taken_is_taken_by_nobody() -> None:
    claims = Claims(None, 0)
    cell, claim = opened(claims)
    claims.close(cell)
    assert not claims.take(cell, claim, 1)


def test_what_is_no_cell() -> None:
    claims = Claims(None, 0)
    assert not claims.take(-1, 1 << 16, 0) and not claims.take(CELLS_OF_A_ROUTER, 1 << 16, 0)
    with pytest.raises(IndexError):
        claims.close(0)
    assert Claims(bytearray(80)).open() is None, "a shard opens none"


def test_a_router_has_its_own_cells_and_runs_out_of_them() -> None:
    memory = bytearray(8 * CELLS_OF_A_ROUTER + 8 * 3)
    second = Claims(memory, 1)
    cells = [opened(second)[0] for _ in range(3)]
    assert cells == [CELLS_OF_A_ROUTER + i for i in range(3)]
    assert second.open() is None
    second.close(cells[1])
    assert opened(second)[0] == cells[1]


def test_a_router_that_ended_leaves_nothing_to_take(tmp_path: Path) -> None:
    fd = page.create(str(tmp_path), 2)
    keep = os.dup(fd)
    routers = [Claims(pages.mapped(os.dup(fd)), index) for index in range(2)]
    shard = Claims(pages.mapped(fd))
    before = [opened(routers[0]) for _ in range(3)]
    other = opened(routers[1])
    assert shard.take(*before[1], 0)
    page.void(keep, 0)
    assert not any(shard.take(cell, claim, 0) for cell, claim in before)
    assert shard.take(*other, 0)
    again = Claims(pages.mapped(keep), 0)
    for cell, claim in before:
        assert opened(again) > (cell, claim)
        assert not shard.take(cell, claim, 0)


def test_several_processes_at_once(tmp_path: Path) -> None:
    """Four processes try to take the same cells; each is had by exactly one of them."""
    fd = page.create(str(tmp_path), 1)
    router = Claims(pages.mapped(os.dup(fd)), 0)
    cells = [opened(router) for _ in range(20_000)]
    results = []
    for number in range(4):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                shard = Claims(pages.mapped(os.dup(fd)))
                order = random.Random(number).sample(range(len(cells)), len(cells))
                won = sum(shard.take(*cells[place], number) for place in order)
                os.write(writer, b"%d" % won)
            finally:
                os._exit(0)
        os.close(writer)
        results.append((pid, reader))
    counts = []
    for pid, reader in results:
        counts.append(int(os.read(reader, 100)))
        os.close(reader)
        os.waitpid(pid, 0)
    assert sum(counts) == len(cells)
    owners = [router.owner(cell) for cell, _ in cells]
    assert [owners.count(number) for number in range(4)] == counts
    os.close(fd)
