"""``kache`` and ``python -m kache``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; leaves with the exit status."""
    from kache.cli.main import run

    sys.exit(run())


if __name__ == "__main__":
    main()
