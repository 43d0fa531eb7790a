"""What routers see of a script that runs: never that it runs without whether it has written."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kache.cluster import running
from kache.cluster.running import Running
from kache.shard.scripting import scripts


@pytest.mark.parametrize("wrote", [False, True])
def test_that_it_has_written_is_seen_with_its_first_sight(monkeypatch: pytest.MonkeyPatch, wrote: bool) -> None:
    """A router that looks at any moment answers SCRIPT KILL with OK only for one that can be ended."""
    page = Running()
    page.show(0, wrote=True)
    page.clear(0)
    seen: list[bool] = []

    def now_ms() -> int:
        seen.append(page.has_written(0))  # the moment before it is shown
        return 5

    monkeypatch.setattr(running, "_now_ms", now_ms)
    call = SimpleNamespace(
        killed=False, is_shown=False, described=None, program=SimpleNamespace(wrote=wrote), show_written=None,
        scripts=SimpleNamespace(page=page, shard=SimpleNamespace(index=0)),
    )  # fmt: skip
    assert scripts.Run.tick(call) is False  # type: ignore[arg-type]  # as much of one as ticks
    assert seen == [wrote] and page.has_written(0) == wrote
    page.kill(0)
    assert scripts.Run.tick(call) is not wrote  # type: ignore[arg-type]
