"""One file beside the supervisor: it goes on while the disk hangs, and hears of the end in its own turn."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from kache.cluster.writing import Writing


class Disk:
    """Hangs until it is let go on, then fails with `error`, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.goes_on = threading.Event()
        self.woken = threading.Event()
        self.error = error
        self.thread: threading.Thread | None = None
        self.said: list[int | None] = []
        self.writing = Writing(self.woken.set)

    def write(self) -> None:
        self.thread = threading.current_thread()
        assert self.goes_on.wait(30)
        if self.error is not None:
            raise self.error

    def begin(self) -> None:
        self.writing.do(self.write, lambda error: self.said.append(None if error is None else error.errno))


@pytest.mark.parametrize(
    ("error", "expected"),
    [(None, None), (OSError(errno.ENOSPC, "full"), errno.ENOSPC), (ValueError("a fault"), errno.EIO)],
)
def test_it_is_told_in_a_turn_of_its_own(error: BaseException | None, expected: int | None) -> None:
    disk = Disk(error)
    disk.begin()
    disk.writing.look()
    assert disk.said == [] and not disk.writing.close(0)
    with pytest.raises(RuntimeError, match="under way"):
        disk.begin()
    disk.goes_on.set()
    assert disk.woken.wait(30) and disk.writing.close(30)
    assert disk.said == [] and disk.thread is not threading.current_thread()
    disk.writing.look()
    disk.writing.look()
    assert disk.said == [expected]
    disk.begin()
    assert disk.writing.close(30)
    disk.writing.look()
    assert disk.said == [expected, expected]


def test_without_a_thread_it_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    disk = Disk()
    disk.goes_on.set()
    disk.begin()
    assert disk.woken.is_set() and disk.said == []
    disk.writing.look()
    assert disk.said == [None]


def test_a_child_can_be_forked_meanwhile() -> None:
    disk = Disk()
    disk.begin()
    pid = os.fork()
    if pid == 0:
        os._exit(threading.active_count())
    disk.goes_on.set()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert disk.writing.close(30)
