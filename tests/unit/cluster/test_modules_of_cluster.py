"""The supervisor's side of modules: all children or none, numbers that are never used twice, children that come meanwhile."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kache.cluster import messages
from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.modules import MOST_SOURCE_BYTES, Modules, read_source
from kache.commands import TABLE
from kache.errors import KacheError

HEAD = "from kache.module import command\n"
V1 = HEAD + "@command('v')\ndef v(ctx, key): return 1\n@command('w')\ndef w(ctx, key): return 1\n"
V2 = HEAD + "@command('v')\ndef v(ctx, key): return 2\n@command('w')\ndef w(ctx, key, more): return 2\n"
ALL = ("shard 0", "shard 1", "router 0")


class Cluster:
    """Two shards and a router, which answer when a test says so."""

    def __init__(self) -> None:
        self.children = [
            SimpleNamespace(role=name.split()[0], index=int(name.split()[1]), name=name, conversation=object())
            for name in ALL
        ]
        self.acknowledgements = Acknowledgements()
        self.selector = selectors.DefaultSelector()
        self.sent: list[tuple[str, messages.ModulesAre]] = []
        self.said: list[str] = []
        send: Callable[..., None] = lambda child, message: self.sent.append((child.name, message))  # noqa: E731  # one line
        self.modules = Modules(self.children, self.acknowledgements, self.selector, send)  # type: ignore[arg-type]  # what it uses of a Child

    def load(self, source: str, path: str = "/nowhere/app.py", replace: bool = False) -> None:
        """Begin to load; returns when the file was tried."""
        said, sent = len(self.said), len(self.sent)
        self.modules.load(path, source, replace, self.said.append)
        deadline = time.monotonic() + 60
        while len(self.said) == said and len(self.sent) == sent:
            assert time.monotonic() < deadline
            for key, mask in self.selector.select(0.1):
                key.data(mask)

    def acknowledge(self, *names: str, error: str = "") -> list[tuple[str, messages.ModulesAre]]:
        """The children of these names (all: every one that was told) acknowledge; what they had been told."""
        told, self.sent = self.sent, []
        for name, message in told:
            if not names or name in names:
                self.acknowledgements.acknowledged(message.id, name, error)
        return told

    def everything(self) -> None:
        """They acknowledge until nothing is told any more."""
        while self.sent:
            self.acknowledge()

    def numbers(self) -> dict[str, int]:
        """Numbers of the commands that routers know."""
        are = self.modules.of_child("router")
        assert are is not None
        return {command.name: command.number for module in are.modules for command in module.commands}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def who(told: list[tuple[str, messages.ModulesAre]]) -> list[str]:
    return [name for name, _ in told]


def test_shards_come_before_routers(cluster: Cluster) -> None:
    cluster.load(V1)
    told = cluster.acknowledge("shard 0")
    assert who(told) == ["shard 0", "shard 1"] and not cluster.sent and not cluster.said
    assert cluster.modules.of_child("router") is None and cluster.modules.listed == []
    cluster.acknowledgements.acknowledged(told[1][1].id, "shard 1")
    told = cluster.acknowledge()
    assert who(told) == ["router 0"] and told[0][1].modules[0].source == ""
    assert cluster.said == [""] and cluster.numbers() == {"v": len(TABLE), "w": len(TABLE) + 1}
    assert [each.commands for each in cluster.modules.listed] == [["v", "w"]]


def test_what_one_cannot_take_in_is_taken_back_everywhere(cluster: Cluster) -> None:
    cluster.load(V1)
    told, cluster.sent = cluster.sent, []
    cluster.acknowledgements.acknowledged(told[0][1].id, "shard 0")
    cluster.acknowledgements.acknowledged(told[1][1].id, "shard 1", "app: no")
    assert cluster.said == ["the module app was not loaded, since shard 1 cannot take it in: app: no"]
    assert who(cluster.sent) == ["router 0", "shard 0", "shard 1"] and all(not m.modules for _, m in cluster.sent)
    assert cluster.sent[0][1].epoch > told[0][1].epoch and cluster.modules.listed == []


def test_what_one_is_late_with_is_taken_back_everywhere(cluster: Cluster) -> None:
    cluster.load(V1)
    cluster.acknowledge("shard 0")
    cluster.acknowledgements.expire(time.monotonic() + 3600)
    assert cluster.said == ["the module app was not loaded, since shard 1 did not acknowledge in time"]
    assert all(not message.modules for _, message in cluster.sent) and cluster.modules.listed == []


def test_one_that_ends_meanwhile_begins_with_what_its_kind_was_told(cluster: Cluster) -> None:
    cluster.load(V1)
    epoch = cluster.sent[0][1].epoch
    cluster.acknowledge("shard 0")
    begins = cluster.modules.of_child("shard")
    assert begins is not None and begins.epoch == epoch and begins.modules[0].source == V1
    cluster.acknowledgements.gone("shard 1")
    cluster.everything()
    assert cluster.said == [""]
    assert cluster.modules.of_child("metrics") is None


def test_numbers_are_kept_by_rows_that_are_the_same_and_used_once(cluster: Cluster) -> None:
    cluster.load(V1)
    cluster.everything()
    first = len(TABLE)
    cluster.load(V2, replace=True)
    between = cluster.acknowledge()[0][1]
    # Both versions, the new one last: frames of the one before are on their way.
    assert [[c.number for c in each.commands] for each in between.modules] == [[first, first + 1], [first, first + 2]]
    cluster.everything()
    last = cluster.modules.of_child("shard")
    assert last is not None and len(last.modules) == 1 and cluster.said == ["", ""]
    cluster.load(V1, replace=True)
    cluster.everything()
    assert cluster.numbers() == {"v": first, "w": first + 3}
    cluster.modules.unload("app.py", cluster.said.append)
    assert who(cluster.acknowledge()) == ["router 0"] and who(cluster.acknowledge()) == ["shard 0", "shard 1"]
    cluster.load(V1)
    cluster.everything()
    assert cluster.numbers() == {"v": first + 4, "w": first + 5} and set(cluster.said) == {""}


def test_changes_wait_for_their_turn(cluster: Cluster) -> None:
    cluster.load(V1)
    cluster.modules.unload("app", cluster.said.append)
    cluster.modules.unload("app", cluster.said.append)
    cluster.everything()
    assert cluster.said == ["", "", "there is no module app"] and cluster.modules.listed == []


def test_what_is_refused_before_anything_is_told(cluster: Cluster) -> None:
    cluster.load(V1)
    cluster.everything()
    for source, path, replace, text in (
        (V1, "app.py", False, "the module app is loaded already; --replace loads it in its place"),
        (V1, "other.py", False, "the module other was not loaded: the command v is in the module app already"),
        ("x" * (MOST_SOURCE_BYTES + 1), "long.py", False, f"the module long has more than {MOST_SOURCE_BYTES} bytes"),
        ("1 / 0", "app.py", True, "the module app was not loaded: line 1: ZeroDivisionError: division by zero"),
    ):
        cluster.load(source, path, replace)
        assert cluster.said[-1] == text and not cluster.sent


def test_a_file_that_does_not_come_to_an_end_is_ended(cluster: Cluster) -> None:
    cluster.modules.load("app.py", "while True: pass", False, cluster.said.append)
    (until,) = cluster.modules.deadlines()
    cluster.modules.expire(until - 1)
    assert cluster.said == []
    cluster.modules.expire(until)
    assert cluster.said == ["the module app was not loaded: it did not come to an end within 15 s"]
    assert cluster.modules.deadlines() == [] and not cluster.selector.get_map()


def test_a_cluster_that_ends_ends_the_process_that_tries(cluster: Cluster) -> None:
    cluster.modules.load("app.py", "while True: pass", False, cluster.said.append)
    cluster.modules.close()
    cluster.modules.close()
    assert cluster.said == [] and not cluster.selector.get_map()


def test_sources_are_read_as_python_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "app.py"
    path.write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe4'\n")
    assert "'ä'" in read_source(str(path))
    for data, text in (
        (b"# -*- coding: nonsense -*-\n", "is no text of Python"),
        (b"\xff\xfe\x00", "is no text of Python"),
    ):
        path.write_bytes(data)
        with pytest.raises(KacheError, match=text):
            read_source(str(path))
    with pytest.raises(KacheError, match="cannot be read: No such file"):
        read_source(str(tmp_path / "none.py"))
    with pytest.raises(KacheError, match="cannot be read: Is a directory"):
        read_source(str(tmp_path))


def test_modules_of_the_settings_are_there_from_the_start(tmp_path: Path, cluster: Cluster) -> None:
    paths: list[Any] = []
    for name, source in (("one", V1), ("two", "1 / 0")):
        paths.append(str(tmp_path / f"{name}.py"))
        (tmp_path / f"{name}.py").write_text(source)
    with pytest.raises(KacheError, match=r"two\.py cannot be loaded: line 1: ZeroDivisionError"):
        Cluster().modules.start(paths)
    cluster.modules.start(paths[:1])
    begins = cluster.modules.of_child("shard")
    assert begins is not None and begins.epoch == 1 and not cluster.sent
    assert cluster.numbers() == {"v": len(TABLE), "w": len(TABLE) + 1}
