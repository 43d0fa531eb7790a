"""What a cluster logs when it starts."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kache import __version__
from kache.cluster.announcement import announce, machine_memory
from kache.config.reading import load


def said(
    caplog: pytest.LogCaptureFixture, options: dict[str, object], environ: dict[str, str]
) -> list[tuple[str, str]]:
    caplog.set_level(logging.INFO)
    announce(load(options, environ), environ)
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_one_line_of_what_it_is_and_found(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = said(
        caplog, {"shards": 3, "maxmemory": "64mb", "bind": ["127.0.0.1", "::1"]}, {"KACHE_REQUIREPASS": "sesame"}
    )
    assert line[0] == "INFO"
    assert line[1].startswith(f"Kache {__version__} starts as pid ")
    assert "usable core" in line[1] and "of memory; " in line[1]
    assert line[1].endswith("shards 3, bind 127.0.0.1 ::1, maxmemory 64mb, requirepass ***")


def test_defaults(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = said(
        caplog, {}, {"KACHE_RUN_DIR": "/x", "KACHE_CONFIG": "", "KACHE_HOST": "h", "KACHE_PASSWORD": "p", "PATH": "/"}
    )
    assert line[1].endswith("all settings are defaults")


def test_more_memory_than_there_is(caplog: pytest.LogCaptureFixture) -> None:
    _, warning = said(caplog, {"maxmemory": "900tb"}, {})
    assert warning[0] == "WARNING"
    assert warning[1].startswith("maxmemory 900tb is more than the ")


def test_memory_whose_unit_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    _, warning = said(caplog, {"maxmemory": "512"}, {})
    assert warning[0] == "WARNING"
    assert warning[1].startswith("maxmemory 512 is less than 1mb for all shards together: ")
    caplog.clear()
    assert len(said(caplog, {"maxmemory": "1mb"}, {})) == 1


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("KACHE_MAX_MEMORY", "; KACHE_MAXMEMORY is one"),
        ("KACHE_MAXMEMORY_POLCY", "; KACHE_MAXMEMORY_POLICY is one"),
        ("KACHE_MAX_MEM", "; KACHE_MAXMEMORY is one"),
        ("KACHE_COLOUR", ""),
    ],
)
def test_a_variable_that_is_no_setting(caplog: pytest.LogCaptureFixture, variable: str, meant: str) -> None:
    _, warning = said(caplog, {}, {variable: "secret"})
    assert warning == ("WARNING", f"the variable {variable} is no setting of Kache{meant}")


def test_the_limit_of_a_container(tmp_path: Path) -> None:
    whole = machine_memory(str(tmp_path))
    assert whole > 2**20
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_memory(str(tmp_path)) == whole
    (tmp_path / "memory.max").write_text("1048576\n")
    assert machine_memory(str(tmp_path)) == 1048576
