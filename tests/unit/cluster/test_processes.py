"""Counts of clients, restart waits, the port lock."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import struct
import sys
from pathlib import Path

import pytest
import uvloop

from kache.cluster import client_counts, pages, processes
from kache.cluster.children import Child
from kache.cluster.run_dir import PortLock, RunDirError, make_private


def test_clients_are_counted_for_all_to_see(tmp_path: Path) -> None:
    page = client_counts.create(str(tmp_path), 3)
    assert list(tmp_path.iterdir()) == []  # nothing that could be lost
    one, other = (memoryview(pages.mapped(os.dup(page))).cast("q") for _ in range(2))
    one[1], one[2] = 7, 8
    assert other.tolist() == [0, 7, 8]
    client_counts.clear(page, 1)
    assert one.tolist() == other.tolist() == [0, 0, 8]
    os.close(page)
    with pytest.raises(FileNotFoundError, match="none"):
        client_counts.create(str(tmp_path / "none"), 3)


def test_waits_grow_and_start_anew_after_steady_service() -> None:
    child = Child("shard", 0, "title")
    assert [child.wait_before_restart(0.0, 1.0) for _ in range(7)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    child.ready_at = 100.0
    assert child.wait_before_restart(100.1, 1.0) == 1.0
    assert child.wait_before_restart(101.0, 1.0) == 0.0


def test_port_lock(tmp_path: Path) -> None:
    first = PortLock(str(tmp_path), 7379)
    with pytest.raises(RunDirError, match=f"Port 7379 already has a cluster: pid {os.getpid()}."):
        PortLock(str(tmp_path), 7379)
    PortLock(str(tmp_path), 7380).release()
    first.release()
    assert list(tmp_path.iterdir()) == []
    assert not PortLock(str(tmp_path), 7379).abandoned


def test_a_lock_left_by_a_dead_process_is_taken(tmp_path: Path) -> None:
    (tmp_path / "7379.lock").write_text("pid 1\n")
    lock = PortLock(str(tmp_path), 7379)
    assert lock.abandoned
    lock.release()


def test_private_directory(tmp_path: Path) -> None:
    make_private(str(tmp_path / "new"))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for path in (tmp_path / "link", Path(__file__)):
        with pytest.raises(RunDirError, match="is not a directory of yours"):
            make_private(str(path))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="madvise and /proc are Linux's")
def test_an_event_loop_works_on_without_its_empty_pages() -> None:
    loop = uvloop.new_event_loop()
    first, last = id(loop) // mmap.PAGESIZE + 1, (id(loop) + type(loop).__basicsize__) // mmap.PAGESIZE

    def resident() -> int:
        """Of the pages that lie inside the loop."""
        with open("/proc/self/pagemap", "rb") as file:
            file.seek(first * 8)
            words = struct.unpack(f"<{last - first}Q", file.read((last - first) * 8))
        return sum(word >> 63 for word in words)

    async def echo() -> bytes:
        """Reads through the buffer whose pages were given back."""
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        with theirs:
            theirs.sendall(b"x" * 10_000)
            got = await reader.readexactly(10_000)
        writer.close()
        return got

    try:
        before = resident()
        processes.give_back_empty_pages(loop)
        assert before > 50 and resident() < before // 4
        assert loop.run_until_complete(echo()) == b"x" * 10_000
    finally:
        loop.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not say which pages were changed")
def test_what_was_loaded_and_is_not_used_takes_no_memory_and_is_there_when_it_is_needed() -> None:
    def of_files() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile:"))

    before = of_files()
    processes.let_go_of_files()
    after = of_files()
    assert after < before / 2
    # Libraries that have been relocated are as they were.
    assert uvloop.new_event_loop().close() is None
    assert processes.listener_of_port(1) is None


def test_a_page_that_was_changed_and_is_swapped_out_is_not_let_go_of(tmp_path: Path) -> None:
    def mapping(first: int, anonymous: int, swap: int, rights: str = "r--p", path: str = "/lib/a.so") -> str:
        return (
            f"{first:x}-{first + 0x1000:x} {rights} 00000000 fe:00 12 {path}\n"
            f"Rss: 4 kB\nAnonymous:  {anonymous} kB\nAnonHugePages: 0 kB\nSwap:  {swap} kB\nSwapPss: 0 kB\n"
        )

    smaps = tmp_path / "smaps"
    smaps.write_text(
        mapping(0x1000, 0, 0)
        + mapping(0x2000, 0, 4)
        + mapping(0x3000, 4, 0)
        + mapping(0x4000, 0, 0, rights="rw-p")
        + mapping(0x5000, 0, 0, path="")
        + mapping(0x6000, 0, 0, rights="r-xp")
    )
    assert processes.untouched_files(str(smaps)) == [(0x1000, 0x2000), (0x6000, 0x7000)]
    assert processes.untouched_files(str(tmp_path / "none")) == []
