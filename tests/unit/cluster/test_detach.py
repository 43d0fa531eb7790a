"""Starting in the background: a cluster that loads its data is waited for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kache.cluster.detach import _Before
from kache.config.settings import Config


@pytest.mark.parametrize(
    "line", ["notice shard 1: loading: 41 % of 2gb", "notice supervisor: dividing 2 shards over 3: 9 %"]
)
def test_what_is_at_work_is_waited_for_as_long_as_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("KACHE_RUN_DIR", str(tmp_path / "run"))
    log = tmp_path / "log"
    log.write_text("shard 1: loading: of another time\n")
    before = _Before(msgspec.structs.replace(Config(), logfile=str(log)))
    assert not before.is_at_work()
    with log.open("a") as file:
        print(line, file=file)
    assert before.is_at_work()
    assert not before.is_at_work(), "it says nothing new"
    with log.open("a") as file:
        print(line + " and more", file=file)
    assert before.is_at_work()
