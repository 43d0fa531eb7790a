"""The heap of blocks: no two overlap, contents stay, what is free is used again, sparse slabs run empty, pages go back."""

from __future__ import annotations

import gc
import itertools
import random
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from kache.shard.engine.blocks import Block, check_heap, cool_down_heap, free_here, heap_state

MIB = 1 << 20
SIZES = [1, 8, 9, 16, 100, 128, 129, 144, 145, 500, 1000, 1024, 1025, 4096, 8192, 8193, 12288, 12289, 100_000, 3 * MIB]


@pytest.fixture(autouse=True)
def checked() -> Iterator[None]:
    gc.collect()  # other tests' data lies in the same heap
    held = settled()
    yield
    check_heap()
    assert settled() <= held


def settled() -> int:
    """Bytes held once everything that is free was given back."""
    while cool_down_heap() or heap_state()["dirty"]:
        pass
    return heap_state()["held"]


def test_a_block_has_at_least_what_was_asked_and_not_much_more() -> None:
    for size in [*range(1, 9000), 20_000, 65_536, 65_537, MIB]:
        block = Block(size)
        assert size <= block.room <= max(size + 7, size * 9 // 8, (size + 4095) // 4096 * 4096), size
        block.free()


@pytest.mark.parametrize("seed", range(3))
def test_blocks_of_all_sizes_against_a_model(seed: int) -> None:
    rng = random.Random(seed)
    blocks: dict[int, tuple[Block, int]] = {}
    contents: dict[int, bytes] = {}
    for step in range(20_000):
        what = rng.random()
        if what < 0.55 or not blocks:
            size = rng.choice(SIZES[:-1]) if rng.random() < 0.3 else int(2 ** rng.uniform(0, 13))
            block = Block(size)
            blocks[block.address] = block, size
            contents[block.address] = bytes([size & 0x7F]) * size
        else:
            address = rng.choice(list(blocks))
            block, size = blocks.pop(address)
            assert block.contents(size) == contents[address]
            del contents[address]
            if what < 0.85:
                block.free()
                continue
            if what < 0.93:
                before = block.contents(size)
                block.grow(size + rng.randrange(200))
                assert block.contents(size) == before
            else:
                before = block.contents(size)
                block.move()
                assert block.contents(size) == before
            blocks[block.address] = block, size
            contents[block.address] = before
        if step % 2000 == 0:
            check_heap()
            spans = sorted((address, address + block.room) for address, (block, _) in blocks.items())
            assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    for block, _size in blocks.values():
        block.free()


def test_moving_what_is_sparse_frees_pages() -> None:
    rng = random.Random(5)
    before = settled()
    blocks = [Block(size) for size in (64,) * 40_000 + (600,) * 8000]
    full = settled() - before
    rng.shuffle(blocks)
    kept, gone = blocks[:4800], blocks[4800:]
    for block in gone:
        block.free()
    assert settled() - before > full * 0.6 and heap_state()["holes"] > full * 0.5
    rounds = 0
    while any(block.sparse for block in kept):
        for block in kept:
            block.move()
        rounds += 1
        assert rounds < 10
    assert settled() - before < full * 0.12
    for block in kept:
        block.free()


def test_a_block_of_every_size_takes_little_more_than_all_of_them() -> None:
    before = settled()
    blocks: dict[int, Block] = {}
    for size in range(8, 8193, 8):
        block = Block(size)
        if block.room in blocks:
            block.free()
        else:
            blocks[block.room] = block
    assert len(blocks) == 64
    assert settled() - before < 1.2 * MIB
    for block in blocks.values():
        block.free()


def test_what_is_free_goes_back_to_the_system() -> None:
    blocks = [Block(MIB) for _ in range(20)]
    for block in blocks:
        block.free()
    assert heap_state()["dirty"] <= 2 * MIB
    rounds = 0
    while heap_state()["dirty"]:
        cool_down_heap()
        rounds += 1
        assert rounds < 50
    again = Block(MIB)
    assert again.contents(MIB) == bytes(MIB)
    again.free()


def test_another_thread_frees_and_the_owner_takes_it_in() -> None:
    blocks = [Block(size) for size in (40, 300, 5000, 20_000) * 2000]
    before = settled() - sum(block.room for block in blocks)
    started = threading.Event()

    def other() -> None:
        free_here(False)
        started.set()
        for block in blocks:
            block.free()

    thread = threading.Thread(target=other)
    thread.start()
    # The owner goes on meanwhile.
    started.wait(10)
    mine = [Block(40) for _ in range(5000)]
    thread.join()
    assert settled() - before < MIB
    for block in mine:
        block.free()


def test_a_round_gives_back_no_more_than_takes_the_system_a_moment() -> None:
    blocks = [Block(MIB) for _ in range(100)]
    settled()

    def other() -> None:
        free_here(False)
        for block in blocks:
            block.free()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    for _ in range(1000):
        before = heap_state()["given_back"]
        more = cool_down_heap()
        assert heap_state()["given_back"] - before <= 20 * MIB
        if not more:
            break
    else:
        raise AssertionError("there was more to do after a thousand rounds of a heap of 100 MiB")


def test_without_a_region_blocks_are_mallocs() -> None:
    program = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_AS, (900 << 20, 900 << 20))\n"
        "from kache.shard.engine.blocks import heap_state\n"
        "from kache.shard.shard import Shard\n"
        "shard = Shard()\n"
        "for n in range(2000): shard.execute([b'SET', b'k%d' % n, bytes(n)])\n"
        "shard.store.check()\n"
        "assert not shard.defragment_some(10**9)\n"
        "assert heap_state()['region'] == heap_state()['held'] == 0\n"
        "assert shard.execute([b'STRLEN', b'k1999']) == b':1999\\r\\n'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
