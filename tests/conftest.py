"""For all tests: they run on the installed package, never on the source folder.

This file's folder is on the path, so `cluster` (a real cluster for a test) can be imported everywhere below.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jitter
import pytest
from hypothesis import settings

import kache

ROOT = Path(__file__).parent.parent

# The same examples in every run: a failure is the change's own. `KACHE_EXPLORE=1 pytest tests/oracle` draws new ones.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile("explore" if os.environ.get("KACHE_EXPLORE") else "fixed")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a run in which the repository's own folder shadows the package (``python -m pytest`` at the root)."""
    import sys

    if str(ROOT) in (str(Path(entry or ".").resolve()) for entry in sys.path):
        raise pytest.UsageError("run plain `pytest`: `python -m pytest` puts the source folder before the package")
    if not Path(kache.__file__).exists():
        raise pytest.UsageError("install the package first: pip install -e '.[test]'")
    # With xdist clusters are started by its workers.
    if hasattr(session.config, "workerinput") or not session.config.getoption("numprocesses", None):
        jitter.begin()


REPEATED = ("backend", "clients", "e2e", "oracle", "security", "testing")
"""Folders whose tests start processes, and depend on when the system runs them."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where second tries are counted (`make test`), these have one, but for those marked `once`."""
    if config.getoption("max_suite_reruns", None) is None:
        return
    for item in items:
        if item.path.parent.name in REPEATED and item.get_closest_marker("once") is None:
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=1))


FROZEN = gc.get_freeze_count()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """What a shard freezes in the process of the test, other tests' garbage among it, would stay for good: and its memory is
    that of one heap, which some tests measure."""
    if gc.get_freeze_count() > FROZEN:
        gc.unfreeze()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In place of pytest's own: a short one, since clusters have Unix sockets below it, whose paths are limited."""
    with tempfile.TemporaryDirectory(prefix="kache-") as folder:
        yield Path(folder)
