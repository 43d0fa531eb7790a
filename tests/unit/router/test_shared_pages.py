"""What a router has mapped with others is given back when the router goes, in whatever order a collection clears it."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import uvloop

from kache.config.settings import Config
from kache.router.mux import multiplexer
from kache.router.mux.multiplexer import Router
from kache.wire.board import Board
from kache.wire.claims import Claims


def leave_a_cycle(name: str, page: bytearray) -> None:
    """A router and another owner of the page, each of which holds the other, and nobody else does."""
    kind = getattr(multiplexer, name)
    gc.collect()
    owner = kind.__new__(kind)
    gc.collect()  # now it is the oldest of the cycle, which is the first to be cleared
    loop = uvloop.new_event_loop()
    try:
        owner.__init__(Router(loop, Config(), ["/nowhere"], [owner].copy), page)
    finally:
        loop.close()


@pytest.mark.parametrize("name", ["Clients", "Monitors"])
def test_a_collection_that_clears_the_owner_first_gives_the_page_back(name: str) -> None:
    page = bytearray(64)
    leave_a_cycle(name, page)
    with pytest.raises(BufferError):
        page.append(0)
    gc.collect()
    page.append(0)


@pytest.mark.parametrize("make", [lambda page: Board(page, 1), lambda page: Claims(page, 0)], ids=["Board", "Claims"])
def test_a_page_is_given_back_with_its_owner(make: Callable[[bytearray], object]) -> None:
    page = bytearray(64)
    owner = make(page)
    with pytest.raises(BufferError):
        page.append(0)
    del owner
    page.append(0)
