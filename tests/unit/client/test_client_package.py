"""What `kache` and `kache.client` give to a program, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kache
import kache.client
from kache.client import asynchronous, blocking, errors


def test_both_doors_lead_to_the_same_clients() -> None:
    assert kache.Client is kache.client.Client is blocking.Client
    assert kache.AsyncClient is kache.client.AsyncClient is asynchronous.AsyncClient


def test_every_exception_is_at_the_door() -> None:
    raised = set(errors.__all__)
    clients = {"Client", "AsyncClient", "PubSub", "AsyncPubSub", "Message", "NearCache"}
    assert raised | clients == set(kache.client.__all__) == set(kache.__all__) - {"__version__"}
    for name in raised:
        assert getattr(kache.client, name) is getattr(errors, name)


@pytest.mark.parametrize("module", [kache, kache.client])
@pytest.mark.parametrize("name", ["Clinet"])
def test_an_unknown_name_is_an_attribute_error(module: object, name: str) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
        getattr(module, name)


def test_importing_the_package_loads_no_client() -> None:
    program = "import sys, kache, kache.client; print('asyncio' in sys.modules, 'socket' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
