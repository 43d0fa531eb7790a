"""``kache`` and ``python -m kache``."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    """Run the command line; leaves with the exit status."""
    from kache.cli.main import run

    sys.exit(run())


def refuse_sources() -> None:
    """Leave with a sentence where `python -m` has found uncompiled sources before the installed package.

    It looks in the working directory first: there a clone lies in the way of what was installed from it.
    """
    if find_spec("kache.wire.codec") is None:
        folder = Path(__file__).resolve().parents[1]
        sys.exit(
            f"kache: {folder} holds sources that are not compiled. Run `kache` instead of `python -m kache`, "
            "leave this folder, or compile them with `pip install -e .`."
        )


if __name__ == "__main__":
    refuse_sources()
    main()
