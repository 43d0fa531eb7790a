"""The crash simulator over another number of shards: the power fails behind every call of the division.

The old shards or the new ones are there, whole, and the next start makes the new ones of whatever it finds.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from crash_disk import Disk, build
from division import State, cluster, loaded, made

from kache.shard.log import directory as directories
from kache.shard.log import repartition
from kache.shard.log.files import Files, ScriptedFiles

THOROUGH = bool(os.environ.get("KACHE_EXPLORE"))
OLD, NEW = cluster(1, 2), cluster(2, 3)


class Worker:
    """Stands for a worker's process: it works in this one, on the files of the test."""

    returncode = 0

    def __init__(self, files: Files, told: dict[str, Any]) -> None:
        repartition._divide_one(files, told, lambda done: None)
        self.stdout = self

    def readline(self) -> str:
        return ""

    def communicate(self) -> tuple[str, str]:
        return "", ""

    def kill(self) -> None:
        """It has ended."""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> ScriptedFiles:
    """Files that record, of all workers too."""
    files = ScriptedFiles()
    begin = repartition._start

    def start(path: str, *how: Any) -> Any:
        command: list[str] = []
        monkeypatch.setattr(repartition.subprocess, "Popen", lambda words, **_: command.extend(words))
        begin(path, *how)
        return Worker(files, json.loads(command[-1]))

    monkeypatch.setattr(repartition, "_start", start)
    return files


def divide(files: Files, path: Path) -> None:
    repartition.divide(files, str(path), OLD, NEW, True, False, lambda *_: None)


def contents_of(path: Path) -> dict[str, bytes]:
    return {str(each): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def whole_or_not(path: Path, whole: State, goes_on: bool) -> int:
    """The number of shards that count in this directory, which has everything; `goes_on`: and the next start divides it."""
    found = directories.read_cluster(Files(), str(path))
    assert found in (OLD, NEW)
    assert loaded(path, found) == whole
    if found == OLD and goes_on:
        repartition.divide(Files(), str(path), OLD, NEW, True, False, lambda *_: None)
        assert loaded(path, NEW) == whole
    return found.shards


def test_a_power_cut_behind_every_call_of_a_division(tmp_path: Path, here: ScriptedFiles) -> None:
    path = tmp_path / "data"
    path.mkdir()
    whole = made(path, 2, 40)
    before = contents_of(path)
    divide(here, path)
    calls = here.record
    assert loaded(path, NEW) == whole and len(calls) > 40
    disk, draw = Disk.of(str(path), before), random.Random(4)
    tried, step = set(), 1 if THOROUGH else 5
    for count in range(len(calls) + 1):
        if count:
            disk.do(calls[count - 1])
        decides = count and calls[count - 1][0] in ("rename", "fsync_dir")
        if count % step and not decides and count != len(calls):
            continue
        for number, outcome in enumerate(disk.outcomes(draw, 3 if THOROUGH else 1)):
            found = tmp_path / "found"
            found.mkdir()
            build(found, outcome, str(path))
            tried.add(whole_or_not(found, whole, THOROUGH or number % 6 == 0))
            shutil.rmtree(found)
    assert tried == {2, 3}


def test_the_simulator_sees_a_division_that_does_not_sync(tmp_path: Path, here: ScriptedFiles) -> None:
    """Bases that are named before they are on the disk: the test above could not fail otherwise."""
    path = tmp_path / "data"
    path.mkdir()
    whole = made(path, 2, 40)
    disk = Disk.of(str(path), contents_of(path))
    divide(here, path)
    for call in here.record:
        if call[0] != "fdatasync":
            disk.do(call)
    wrong = 0
    for outcome in disk.outcomes(random.Random(1), 1):
        found = tmp_path / "found"
        found.mkdir()
        build(found, outcome, str(path))
        try:
            whole_or_not(found, whole, False)
        except Exception:
            wrong += 1
        shutil.rmtree(found)
    assert wrong
