"""What is kept on disk is read and written by `Files` alone, so that a test can fail any call, or stop the world behind it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted(
    [
        *(path for path in (ROOT / "shard" / "log").glob("*.p[yx]*") if path.suffix in (".py", ".pyx", ".pxi")),
        ROOT / "shard" / "service" / "keeping.py",
        ROOT / "shard" / "service" / "loading.py",
        ROOT / "kache" / "cluster" / "durability.py",
        ROOT / "kache" / "cluster" / "dumps.py",
        ROOT / "kache" / "cluster" / "transactions.py",
    ]
)
CALL = re.compile(
    r"(?<!def )(?<![\w.])open\(|os\.(open|read|write|pread|pwrite|fsync|fdatasync|ftruncate|truncate|rename|replace|unlink|remove|mkdir|"
    r"makedirs|rmdir|listdir|scandir|stat|posix_fallocate)\(|shutil\.|\.(read|write)_(bytes|text)\(|"
    r"(?<![\w.])(fsync|fdatasync|ftruncate|pwrite|pread|fallocate|rename|unlink)\("
)


def calls(path: Path) -> list[str]:
    """The lines that call the file system by themselves."""
    return [line.strip() for line in path.read_text().splitlines() if CALL.search(line.split("#")[0])]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_call_but_by_the_seam(path: Path) -> None:
    if path.name != "files.pyx":
        assert calls(path) == []


def test_the_rule_sees_something() -> None:
    assert len(SOURCES) > 12
    assert any("fdatasync" in line for line in calls(ROOT / "shard" / "log" / "files.pyx"))
