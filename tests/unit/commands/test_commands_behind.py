"""What differs in front of a Redis Cluster, as the page tells it."""

from __future__ import annotations

from pathlib import Path

from kache.commands.behind import differences, markdown

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "past-one-machine.md"


def test_the_page_ends_with_it() -> None:
    assert PAGE.read_text().endswith(f"\n\n{markdown()}")


def test_every_row_that_differs_is_in_it() -> None:
    told = {row.key: how for row, how, _ in differences()}
    assert told["swapdb"] == "refused" and told["rename"] == "one_slot" and "get" not in told
    assert all(text.endswith(".") for _, _, text in differences())
