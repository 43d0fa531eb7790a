"""Starting in the background: a cluster that loads its data is waited for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kache.cluster.detach import _Before, detached
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


@pytest.mark.parametrize("chosen", ["", "own.log"])
def test_a_log_file_that_cannot_be_written_is_told_with_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], chosen: str
) -> None:
    monkeypatch.setenv("KACHE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / (chosen or "kache-7379.log")
    path.mkdir()
    assert detached(msgspec.structs.replace(Config(), logfile=chosen), lambda config, on_ready: 0) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"kache: The log file {path} cannot be written: Is a directory.")
    assert ("It lies in --dir, where this cluster keeps its files" in said) == (not chosen)
