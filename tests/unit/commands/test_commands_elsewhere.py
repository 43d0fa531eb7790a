"""What is not implemented: the page is made of the table, and the names are those that real servers have."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from kache.commands import TABLE
from kache.commands.elsewhere import KNOWN, markdown, missing

ROOT = Path(__file__).parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "oracle"))


def test_the_page_is_made_of_the_table() -> None:
    page = (ROOT / "docs" / "not-implemented.md").read_text()
    assert page == markdown(), "run python -m kache.commands.elsewhere > docs/not-implemented.md"


def test_what_is_here_is_not_missing() -> None:
    ours = {row.name for row in TABLE}
    absent = [name for names in missing().values() for name in names]
    assert not ours & set(absent)
    assert len(absent) == len(set(absent))
    assert sum(map(len, KNOWN.values())) - len(absent) > 240


@contextmanager
def server(binary: str) -> Iterator[int]:
    """A real server of nothing; yields its port."""
    from ports import free_port
    from servers import stop, wait_for

    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            [binary, "--port", str(port), "--save", "", "--dir", directory], stdout=subprocess.DEVNULL
        )
        try:
            wait_for(port, process)
            yield port
        finally:
            stop(process)


def names(port: int) -> dict[str, str]:
    """The group of each command of a real server."""
    with redis.Redis(port=port, protocol=3, decode_responses=True) as client:
        found: dict[str, str] = {}
        for name, documents in client.execute_command("COMMAND DOCS").items():
            subcommands = documents.get("subcommands") or {name: None}
            found |= {each: documents["group"] for each in subcommands if not each.endswith("|help")}
        return found


def test_the_names_are_those_of_real_servers() -> None:
    from servers import valkey_binary

    redis_server = shutil.which("redis-server")
    known = {name: group for group, found in KNOWN.items() for name in found}
    with server(str(valkey_binary())) as port:
        found = names(port)
    assert found.items() <= known.items()
    if redis_server is None:
        pytest.skip("there is no redis-server to ask for the rest")
    with server(redis_server) as port:
        found |= names(port)
    assert found == known
