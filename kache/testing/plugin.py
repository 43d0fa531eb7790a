"""The pytest plugin: `kache_cluster`, a cluster for the session, and `kache`, an empty one for every test.

pytest loads this in every session, so nothing is imported before a test asks for it. Under pytest-xdist each worker has
its own cluster, on a port of its own. The first cluster is launched while the tests before it run.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kache import Client
    from kache.testing import LocalCluster

MARKER = (
    "kache(shards=2, **settings): the settings of the cluster that the test runs on, as of `kache cluster start` with "
    "underscores; frozen=True stops its clock before the test"
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A marked test has a cluster with the settings of its mark: pytest keeps tests with the same ones together."""
    settings = _settings(metafunc.definition)
    if settings and "kache_cluster" in metafunc.fixturenames:
        shown = dict(settings)
        if "modules" in shown:
            shown["modules"] = "+".join(os.path.basename(path) for path in shown["modules"])
        name = ",".join(f"{name}={value}" for name, value in sorted(shown.items()))
        metafunc.parametrize("kache_cluster", [settings], ids=[name], indirect=True, scope="session")


_launched = pytest.StashKey["tuple[dict[str, Any], LocalCluster]"]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """The cluster that will be needed first begins to start now."""
    first = next((item for item in session.items if "kache_cluster" in getattr(item, "fixturenames", ())), None)
    if first is not None and not session.config.option.collectonly:
        from kache.testing import LocalCluster

        settings = _settings(first)
        try:
            cluster = LocalCluster(**settings)
            cluster.launch()
        except (TypeError, OSError):
            return  # the fixture meets it again, and says so
        session.config.stash[_launched] = (settings, cluster)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End one that was launched and that no test got to."""
    _, cluster = config.stash.get(_launched, (None, None))
    if cluster is not None:
        cluster.close()


def _cluster(config: pytest.Config, settings: dict[str, Any]) -> LocalCluster:
    """The launched one if it has these settings, else another."""
    from kache.testing import LocalCluster

    launched = config.stash.get(_launched, None)
    if launched is None:
        return LocalCluster(**settings)
    del config.stash[_launched]
    if launched[0] == settings:
        return launched[1]
    launched[1].close()
    return LocalCluster(**settings)


def _settings(item: Any) -> dict[str, Any]:
    """What the marks of a test say, the nearest one first; without `frozen`, which is not the cluster's."""
    found: dict[str, Any] = {}
    for mark in item.iter_markers("kache"):
        if mark.args:
            raise pytest.UsageError(
                f"{item.nodeid}: settings of @pytest.mark.kache are named, as in @pytest.mark.kache(shards=4)"
            )
        found = mark.kwargs | found
    found.pop("frozen", None)
    if "modules" in found:
        named = found["modules"]
        found["modules"] = [_module_at(item, name) for name in ([named] if isinstance(named, str) else named)]
    return found


def _module_at(item: Any, name: str) -> str:
    """A module of commands is named from the folder of the test, or else from pytest's root."""
    beside = item.path.parent / name
    return str(beside if beside.exists() else item.config.rootpath / name)


def _is_frozen(item: Any) -> bool:
    return next((bool(m.kwargs["frozen"]) for m in item.iter_markers("kache") if "frozen" in m.kwargs), False)


@pytest.fixture(scope="session")
def kache_cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """A running cluster (`kache.testing.LocalCluster`): ``port``, ``url``, ``advance(hours=1)``, ``fault.kill(shard=0)``.

    One for the whole session, so what a test leaves in it the next one finds; `kache` is empty for every test.
    """
    from kache.testing import ClusterFailed

    try:
        cluster = _cluster(request.config, getattr(request, "param", {})).start()
    except (ClusterFailed, TypeError) as error:
        pytest.fail(f"the cluster for this test did not start: {error}", pytrace=False)
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def kache(kache_cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[Client[bytes]]:
    """A `kache.Client` of `kache_cluster`, which is empty, without faults and on time when the test begins."""
    kache_cluster.reset()
    if _is_frozen(request.node):
        kache_cluster.freeze()
    client = kache_cluster.client()
    yield client
    client.close()
    if kache_cluster.fault.active:
        kache_cluster.fault.clear()


@pytest.hookimpl(hookwrapper=True)  # the old way, since pytest loads this whatever its version is
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """A failed test shows what its cluster logged meanwhile."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    cluster: LocalCluster | None = getattr(item, "funcargs", {}).get("kache_cluster")
    if report.failed and cluster is not None and (said := cluster.log().strip()):
        report.sections.append(("log of the Kache cluster", said[-4000:]))
