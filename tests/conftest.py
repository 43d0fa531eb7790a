"""For all tests: they run on the installed package, never on the source folder.

This file's folder is on the path, so `cluster` (a real cluster for a test) can be imported everywhere below.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import kache

ROOT = Path(__file__).parent.parent


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a run in which the repository's own folder shadows the package (``python -m pytest`` at the root)."""
    import sys

    if str(ROOT) in (str(Path(entry or ".").resolve()) for entry in sys.path):
        raise pytest.UsageError("run plain `pytest`: `python -m pytest` puts the source folder before the package")
    if not Path(kache.__file__).exists():
        raise pytest.UsageError("install the package first: pip install -e '.[test]'")
