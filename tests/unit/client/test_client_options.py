"""What `Client` and `AsyncClient` refuse to be made with; nothing here connects."""

from __future__ import annotations

import asyncio
import inspect
import re
import ssl
from typing import Any

import pytest

from kache import AsyncClient, Client
from kache.client.options import check_options, url_options
from kache.client.tls import tls_of

KINDS = (Client, AsyncClient)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "value", "error", "wanted"),
    [
        ("host", 5, TypeError, "host must be a str, not 5"),
        ("host", b"127.0.0.1", TypeError, "host must be a str"),
        ("host", "", ValueError, "host must be a name or an address, not empty"),
        ("port", "7379", TypeError, "port must be an int from 1 to 65535, not '7379'"),
        ("port", True, TypeError, "port must be an int"),
        ("port", 7379.0, TypeError, "port must be an int"),
        ("port", 0, ValueError, "port must be an int from 1 to 65535, not 0"),
        ("port", 65536, ValueError, "port must be an int from 1 to 65535, not 65536"),
        ("password", 5, TypeError, "password must be a str or None, not of type int"),
        ("username", 5, TypeError, "username must be a str or None, not of type int"),
        ("db", -1, ValueError, "db must be an int from 0 to 15, not -1"),
        ("db", 16, ValueError, "db must be an int from 0 to 15, not 16"),
        ("db", None, TypeError, "db must be an int"),
        ("decode", "utf-8", TypeError, "decode must be True or False, not 'utf-8'"),
        ("timeout", -1, ValueError, "timeout must be a number of seconds above 0"),
        ("timeout", 0, ValueError, "timeout must be a number of seconds above 0"),
        ("timeout", float("nan"), ValueError, "timeout must be a number of seconds above 0"),
        ("timeout", float("inf"), ValueError, "up to 1000000, or None for no limit, not inf"),
        ("timeout", "5", TypeError, "timeout must be a number of seconds above 0"),
        ("timeout", True, TypeError, "timeout must be a number of seconds above 0"),
        ("connect_timeout", -0.5, ValueError, "connect_timeout must be a number of seconds above 0"),
        ("connect_timeout", "2", TypeError, "connect_timeout must be a number of seconds"),
        ("max_connections", 0, ValueError, "max_connections must be an int, at least 1, not 0"),
        ("max_connections", 2.5, TypeError, "max_connections must be an int, at least 1, not 2.5"),
        ("unixsocket", 7, TypeError, "unixsocket must be the path of a socket or None, not 7"),
        ("unixsocket", "", ValueError, "unixsocket must be the path of a socket or None, not empty"),
    ],
)
def test_refused(kind: Any, name: str, value: object, error: type[Exception], wanted: str) -> None:
    with pytest.raises(error) as caught:
        kind(**{name: value})
    assert wanted in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_taken(kind: Any) -> None:
    kind("::1", 1, password="p", username="u", db=15, decode=True, timeout=None, connect_timeout=0.1, max_connections=1)
    kind("localhost", 65535, timeout=1_000_000)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("kache://", {"host": "127.0.0.1"}),
        ("redis://cache.example:7400/3", {"host": "cache.example", "port": 7400, "db": 3}),
        ("kache://:p%40ss@[::1]:1/", {"host": "::1", "port": 1, "password": "p@ss"}),
        ("valkey://me:secret@h?timeout=0.5&max_connections=7", {
            "host": "h", "username": "me", "password": "secret", "timeout": 0.5, "max_connections": 7,
        }),
        ("unix:///run/kache%20a.sock?db=2", {"unixsocket": "/run/kache a.sock", "db": 2}),
        ("rediss://:pw@h:7380", {"tls": True, "host": "h", "port": 7380, "password": "pw"}),
        ("kaches://h", {"tls": True, "host": "h"}),
        ("unix://:pw@/run/k.sock", {"unixsocket": "/run/k.sock", "password": "pw"}),
    ],
)  # fmt: skip
def test_urls(url: str, options: dict[str, Any]) -> None:
    assert url_options(url) == options
    for kind in KINDS:
        kind.from_url(url, decode=True)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:7379", "a URL begins with kache://"),
        ("http://h", "a URL begins with kache://, redis:// or unix://, not with 'http://'"),
        ("https://h", "a URL begins with kache://"),
        ("kache://h:99999", "not a URL of a cluster: Port out of range"),
        ("kache://secret@h", "gives a password behind a colon"),
        ("kache://h/first", "the database in a URL must be a number, not 'first'"),
        ("kache://h/16", "db must be an int from 0 to 15, not 16"),
        ("kache://h?timeout=soon", "timeout in a URL must be a number, not 'soon'"),
        ("kache://h?ssl=1", "a URL cannot say 'ssl'; it can say timeout"),
        ("unix://run/k.sock", "has three slashes"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_urls_that_cannot_be_meant(kind: Any, url: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as found:
        kind.from_url(url)
    assert "secret" not in str(found.value)


def test_every_option_of_both_clients_is_checked() -> None:
    checked = list(inspect.signature(check_options).parameters)
    for kind in KINDS:
        # What a near cache is given is checked where it is made, and so is what TLS is.
        of_tls = list(inspect.signature(tls_of).parameters)[:5]
        elsewhere = {"near_cache", *of_tls}
        assert [
            name for name in list(inspect.signature(kind.__init__).parameters)[1:] if name not in elsewhere
        ] == checked
        assert [name for name in inspect.signature(kind.__init__).parameters if name in of_tls] == of_tls


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"tls": "yes"}, TypeError, "tls must be True, False or an ssl.SSLContext, not 'yes'"),
        ({"ca": "ca.pem"}, ValueError, "ca is for TLS: say tls=True as well"),
        ({"tls": True, "ca": 1}, TypeError, "ca must be a str or None, not 1"),
        ({"tls": True, "ca": "/none/ca.pem"}, ValueError, "ca /none/ca.pem holds no certificates that can be read"),
        ({"tls": True, "cert": "/none/c.pem"}, ValueError, "cert /none/c.pem and its key cannot be used"),
        ({"tls": True, "key": "k.pem"}, ValueError, "give cert as well"),
        ({"tls": True, "unixsocket": "/run/k.sock"}, ValueError, "not for a unixsocket"),
        ({"tls": ssl.create_default_context(), "ca": "ca.pem"}, ValueError, "a context has its certificates already"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_meant_with_tls(kind: Any, options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=re.escape(said)):
        kind(**options)


def test_the_timeout_of_one_call() -> None:
    with pytest.raises(ValueError, match="timeout must be a number of seconds above 0"):
        Client(port=1).execute("ping", timeout=-1)
    with pytest.raises(ValueError, match="timeout must be a number of seconds above 0"):
        asyncio.run(AsyncClient(port=1).execute("ping", timeout=-1))


def test_an_ipv6_address_is_named_in_brackets() -> None:
    from kache.client.errors import ConnectError

    with pytest.raises(ConnectError, match=r"cannot connect to \[::1\]:1: "):
        Client("::1", 1).execute("ping")
    with pytest.raises(ConnectError, match=r"cannot connect to \[::1\]:1: "):
        asyncio.run(AsyncClient("::1", 1).execute("ping"))
