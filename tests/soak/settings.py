"""Every setting with every extreme value by CONFIG SET, and after each that is taken every child is killed.

    python tests/soak/settings.py [--only timeout hz]

The long form of tests/e2e/test_settings.py: one value at a time, four minutes or so. Exit status 1 when the supervisor
ended, a child did not come back, the cluster did not answer PING, or a traceback was logged.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "e2e")]

from cluster import Cluster  # noqa: E402 - the folders of the tests are no package
from test_settings import connected, kill_all, values_of  # noqa: E402

from kache.config.settings import SETTINGS  # noqa: E402

STEADY = 0.6
"""Seconds after which a child's death is no part of a crash loop."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", default=list(SETTINGS))
    names = parser.parse_args().only
    taken = refused = 0
    began = time.monotonic()
    with Cluster(1) as cluster:
        default = {}
        with cluster.connect() as connection:
            for name in names:
                default[name] = (connection.request("config", "get", name) or [b"", b""])[1]
        for name in names:
            password = ""
            for text in values_of(name):
                with connected(cluster, password) as connection:
                    reply = connection.request("config", "set", name, text)
                if reply != "OK":
                    assert str(reply).startswith("ERR CONFIG SET failed (possibly related to argument"), (
                        name,
                        text,
                        reply,
                    )
                    refused += 1
                    continue
                taken += 1
                password = text if name == "requirepass" else password
                time.sleep(STEADY)  # let it be no crash loop
                kill_all(cluster)
                connected(cluster, password).close()
            if SETTINGS[name].live:
                with connected(cluster, password) as connection:
                    assert connection.request("config", "set", name, default[name]) == "OK", name
        assert "Traceback" not in cluster.log()
    print(f"{len(names)} settings: {taken} values taken and survived, {refused} refused with the reason, ", end="")
    print(f"{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
