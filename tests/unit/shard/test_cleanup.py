"""The cleanup thread: what is handed over goes, in slices, and what was freed is given back however little it was."""

from __future__ import annotations

import threading

from kache.shard.service.cleanup import Cleanup


class Large:
    """Something with elements that counts how often it was asked."""

    def __init__(self, elements: int) -> None:
        self.left = elements
        self.gone = threading.Event()
        self.thread = 0

    def __len__(self) -> int:
        return self.left

    def release_some(self, count: int) -> bool:
        self.left = max(self.left - count, 0)
        self.thread = threading.get_ident()
        if not self.left:
            self.gone.set()
        return self.left > 0


def test_a_few_elements_are_given_back_too() -> None:
    trimmed, begun = threading.Event(), threading.Event()
    cleanup = Cleanup(trimmed.set, begun.set)
    cleanup.start()
    try:
        for elements in (3, 2000):
            trimmed.clear()
            value = Large(elements)
            cleanup.hand_over(value)
            assert value.gone.wait(10) and value.thread != threading.get_ident()
            assert trimmed.wait(10)
        assert begun.is_set() and cleanup.pending == 0
    finally:
        cleanup.stop()


def test_it_stops_although_it_rests() -> None:
    cleanup = Cleanup(lambda: None, lambda: None)
    cleanup.start()
    cleanup.stop()
    assert cleanup.pending == 0
