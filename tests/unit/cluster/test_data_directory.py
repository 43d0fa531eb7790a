"""What the supervisor keeps in the data directory, over its lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from kache.cluster.durability import DataDirectory
from kache.cluster.resolution import Order, Unfinished
from kache.cluster.transactions import Decision
from kache.config.settings import Config
from kache.errors import KacheError
from kache.libraries import MOST_BYTES, encode
from kache.shard.log.directory import shard_directory


def test_the_largest_libraries_and_a_decision_are_there_again(tmp_path: Path) -> None:
    config = Config(dir=str(tmp_path / "data"), shards=2, appendonly=True)
    unfinished = Unfinished(5, {shard: Order(5, Decision(skip=[*range(100_000)])) for shard in range(2)})
    first = DataDirectory(config)
    first.start(config)
    library = b"#!lua name=large\n"
    first.keep_functions(encode([library + b"x" * (MOST_BYTES - len(library))]))
    first.keep_unfinished(unfinished)
    first.close()
    second = DataDirectory(config)
    second.start(config)
    assert len(second.functions) > MOST_BYTES and second.hash_seed == first.hash_seed
    assert second.unfinished == unfinished
    second.keep_unfinished(None)
    second.close()
    third = DataDirectory(config)
    third.start(config)
    assert third.unfinished is None
    third.close()


def test_a_damaged_file_of_functions_is_told_with_a_way_out(tmp_path: Path) -> None:
    config = Config(dir=str(tmp_path), shards=2, appendonly=True)
    first = DataDirectory(config)
    first.start(config)
    first.keep_functions(encode([b"#!lua name=one\n"]))
    first.close()
    whole = (tmp_path / "functions").read_bytes()
    for damaged in (whole[:-1], whole[:20] + bytes([whole[20] ^ 1]) + whole[21:], encode([b"no library"])):
        (tmp_path / "functions").write_bytes(damaged)
        with pytest.raises(
            KacheError, match=f"{tmp_path}/functions is damaged: .* or move it away to start without any"
        ):
            DataDirectory(config).start(config)
    (tmp_path / "functions").unlink()
    again = DataDirectory(config)
    again.start(config)
    assert again.functions == b""
    again.close()


@pytest.mark.parametrize("inside", ["epoch-1", "epoch-1/shard-0001", "epoch-1/anew/data"])
def test_no_data_directory_begins_inside_of_another(tmp_path: Path, inside: str) -> None:
    config = Config(dir=str(tmp_path), shards=2, appendonly=True)
    first = DataDirectory(config)
    first.start(config)
    first.close()
    before = sorted(tmp_path.rglob("*"))
    second = Config(dir=str(tmp_path / inside), shards=2, appendonly=True)
    with pytest.raises(KacheError, match=f"{tmp_path / inside} lies inside of the data directory {tmp_path}: --dir"):
        DataDirectory(second).start(second)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_first_start_that_was_interrupted_is_begun_anew(tmp_path: Path) -> None:
    """With another number of shards, too."""
    config = Config(dir=str(tmp_path), shards=4, appendonly=True)
    first = DataDirectory(config)
    first.start(config)
    first.close()
    (tmp_path / "cluster").unlink()
    second = DataDirectory(config := Config(dir=str(tmp_path), shards=2, appendonly=True))
    second.start(config)
    second.close()
    assert sorted(path.name for path in (tmp_path / "epoch-1").iterdir()) == ["shard-0000", "shard-0001"]
    (Path(shard_directory(str(tmp_path), 1, 0)) / "000001.log").touch()
    (tmp_path / "cluster").unlink()
    with pytest.raises(KacheError, match=r"has data \(epoch-1\) but no file 'cluster'"):
        DataDirectory(config).start(config)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """`dir` is by default where the cluster was started."""
    for name in ("manifest", "000001.log", "shard-notes"):
        (tmp_path / name).write_text("somebody's")
    (tmp_path / "functions").mkdir()
    (tmp_path / "shard-0001").mkdir()
    config = Config(dir=str(tmp_path), shards=1, appendonly=True)
    first = DataDirectory(config)
    first.start(config)
    first.close()
    assert (tmp_path / "manifest").read_text() == (tmp_path / "000001.log").read_text() == "somebody's"
