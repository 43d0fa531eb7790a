"""A child started by exec instead of fork: ``python -m kache.cluster.child <context fd> <parent pid> <title>``.

Used where forking a process that has loaded system frameworks is not safe (macOS). Only the supervisor starts it.
"""

from __future__ import annotations

import os
import sys

import msgspec

from kache.cluster.children import enter
from kache.cluster.messages import ChildContext


def _main() -> int:
    fd, parent, title = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    with os.fdopen(fd, "rb") as file:
        ctx = msgspec.msgpack.decode(file.read(), type=ChildContext)
    return enter(ctx, title, parent)


if __name__ == "__main__":
    os._exit(_main())
