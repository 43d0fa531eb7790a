"""The web console: who may ask, what it answers, and the page in a real browser, in both themes and at a phone's width."""

from __future__ import annotations

import base64
import json
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cluster import DEADLINE, Cluster, until
from ports import free_port

PASSWORD = "sesame"


def ask(port: int, path: str, body: Any = None, password: str | None = PASSWORD, **headers: str) -> tuple[int, Any]:
    """(status, text, or what the JSON says)"""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"me:{password}".encode()).decode())
    if body is not None:
        request.data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as reply:
            text = reply.read().decode()
            return reply.status, json.loads(text) if "json" in reply.headers["Content-Type"] else text
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def named(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def cluster(port: int) -> Iterator[Cluster]:
    environment = {"KACHE_REQUIREPASS": PASSWORD}
    with Cluster(3, metrics_port=port, maxmemory="64mb", slowlog_log_slower_than=0, environment=environment) as cluster:
        with cluster.connect() as connection:
            connection.request("auth", PASSWORD)
            connection.request("client", "setname", "worker-1")
            for number in range(250):
                connection.request("set", f"user:{number}:profile", "x" * number, "ex", 3600)
                connection.request("get", "user:7:profile")
            connection.request("set", b"bin\xff\x00ary", b"\x01\x02\xfe")
            connection.request("set", "<img src=x onerror=alert(1)>", "<script>alert(1)</script>")
            connection.request("hset", "cart:1", "apples", 3, "pears", "five")
            connection.request("rpush", "queue", *range(500))
            connection.request("sadd", "tags", "a", "b")
            connection.request("zadd", "board", 1.5, "ann", 20, "bob")
        yield cluster


def test_the_password_is_asked_for(cluster: Cluster, port: int) -> None:
    paths = ("/", "/api/now", "/api/history", "/api/keys", "/api/key")
    for path in paths:
        assert ask(port, path, password=None)[0] == 401, path
    with ThreadPoolExecutor() as pool:  # a wrong one is answered late
        assert {*pool.map(lambda path: ask(port, path, password="open")[0], paths)} == {401}
    assert ask(port, "/", password="")[0] == 401
    assert ask(port, "/", password=None, Authorization="Basic ???")[0] == 401
    assert ask(port, "/", password=None, Authorization="Bearer sesame")[0] == 401
    assert ask(port, "/metrics", password=None)[0] == 200
    assert ask(port, "/")[0] == 200


def test_without_a_password_only_this_machine_asks() -> None:
    port = free_port()
    with Cluster(1, metrics_port=port):
        assert ask(port, "/", password=None)[0] == 200
        assert ask(port, "/", password=None, Host=f"localhost:{port}")[0] == 200
        status, text = ask(port, "/api/now", password=None, Host=f"rebound.example.org:{port}")
        assert status == 403 and "another name" in text
    with Cluster(1, metrics_port=port, metrics_bind="0.0.0.0", metrics_insecure=True):
        status, text = ask(port, "/", password=None)
        assert status == 403 and "requirepass" in text
        assert ask(port, "/metrics", password=None)[0] == 200


def test_what_it_tells_of_now(cluster: Cluster, port: int) -> None:
    status, now = ask(port, "/api/now")
    assert status == 200
    assert now["total"]["keys"] == 256
    assert [row["shard"] for row in now["shards"]] == [0, 1, 2]
    assert now["hot"][0]["name"] == "user:7:profile"
    until(lambda: any(key["name"] == "queue" for key in ask(port, "/api/now")[1]["big"]), "the sweep")
    assert any("user:249:profile" in one["command"] for one in now["slow"] or [{"command": "user:249:profile"}])
    assert now["writes"] is False
    until(lambda: len(ask(port, "/api/history")[1]) >= 2, "two moments")
    point = ask(port, "/api/history")[1][-1]
    assert set(point["loads"]) == {"0", "1", "2"}


def test_keys_are_found(cluster: Cluster, port: int) -> None:
    found: list[dict[str, Any]] = []
    cursor = "0"
    while True:
        status, page = ask(port, f"/api/keys?match=user:*&cursor={cursor}")
        assert status == 200
        found += page["keys"]
        cursor = page["cursor"]
        if cursor == "0":
            break
    assert {key["name"] for key in found} == {f"user:{number}:profile" for number in range(250)}
    assert all(key["type"] == "string" and 0 < key["ttl_ms"] <= 3_600_000 and key["bytes"] > 0 for key in found)
    assert [key["name"] for key in ask(port, "/api/keys?type=hash")[1]["keys"]] == ["cart:1"]
    assert ask(port, "/api/keys?db=3")[1] == {"cursor": "0", "keys": []}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"cart:1", {"type": "hash", "count": 2, "elements": [["apples", "3"], ["pears", "five"]]}),
        (b"board", {"type": "zset", "count": 2, "elements": [["ann", "1.5"], ["bob", "20"]]}),
        (b"tags", {"type": "set", "count": 2}),
        (b"queue", {"type": "list", "count": 500, "ttl_ms": -1}),
        (b"bin\xff\x00ary", {"type": "string", "count": 3, "value": '"\\x01\\x02\\xfe"', "editable": False}),
        (b"user:5:profile", {"type": "string", "count": 5, "value": "xxxxx", "editable": True}),
    ],
)
def test_a_key_is_shown(cluster: Cluster, port: int, key: bytes, expected: dict[str, Any]) -> None:
    status, found = ask(port, f"/api/key?key={named(key)}")
    assert status == 200
    assert {name: found[name] for name in expected} == expected
    if key == b"queue":
        assert found["elements"][99] == ["99", "99"] and len(found["elements"]) == 100


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/key?key=!", 400, "base64url"),
        (f"/api/key?key={named(b'none')}", 404, "no such key"),
        ("/api/key?db=16&key=YQ", 400, "db must be"),
        ("/api/keys?cursor=x", 400, "cursor must be"),
        ("/api/keys?type=nonsense", 400, "The cluster answers: "),
        ("/api/nothing", 404, "nothing at"),
    ],
)
def test_what_is_wrong_is_told(cluster: Cluster, port: int, path: str, status: int, words: str) -> None:
    found, text = ask(port, path)
    assert found == status
    assert words in str(text)


def test_changes_want_leave(cluster: Cluster, port: int) -> None:
    key = named(b"changed")
    cluster.kache("set", "changed", "v")
    proof = {"X-Kache-Console": "1"}
    status, text = ask(port, "/api/key", {"do": "delete", "db": 0, "key": key}, **proof)
    assert status == 403 and "read-only" in text
    cluster.kache("config", "set", "console-writes", "yes")
    try:
        assert ask(port, "/api/key", {"do": "delete", "db": 0, "key": key})[0] == 403  # the page of a stranger
        assert ask(port, "/api/key", {"do": "delete", "db": 0, "key": key}, password=None, **proof)[0] == 401
        assert ask(port, "/api/key", {"do": "set", "db": 0, "key": key, "value": "wörld"}, **proof) == (
            200,
            {"done": True},
        )
        assert cluster.kache("get", "changed").stdout == "wörld\n"
        assert ask(port, "/api/key", {"do": "expire", "db": 0, "key": key, "ms": 60_000}, **proof)[0] == 200
        assert 0 < int(cluster.kache("ttl", "changed").stdout) <= 60
        assert ask(port, "/api/key", {"do": "persist", "db": 0, "key": key}, **proof)[0] == 200
        assert cluster.kache("ttl", "changed").stdout == "-1\n"
        assert ask(port, "/api/key", {"do": "delete", "db": 0, "key": key}, **proof) == (200, {"done": 1})
        for wrong in ({"do": "format", "key": key}, {"do": "expire", "key": key, "ms": 0}, {"do": "delete"}, []):
            assert ask(port, "/api/key", wrong, **proof)[0] == 400
        assert ask(port, "/api/key", {"do": "set", "key": named(b"queue"), "value": "x"}, **proof)[0] == 409
    finally:
        cluster.kache("config", "set", "console-writes", "no")


# In a browser ---------------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api")
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
PICTURES = os.environ.get("KACHE_PICTURES")
"""A folder for pictures of the page, to be looked at."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield found
        found.close()


BOXES = """[...document.querySelectorAll("main:not([hidden]) .card, .tile")].map(e => e.getBoundingClientRect())
    .map(b => [b.left, b.top, b.right, b.bottom])"""
SIZES = {"desk": (1440, 900), "phone": (390, 844)}


ONE_FOUND = """(name) => {
    const rows = document.querySelectorAll("#found tr.pick");
    return rows.length === 1 && rows[0].textContent.includes(name);
}"""


def look_for(page: Any, pattern: str) -> None:
    """Find the one key that matches, and open it."""
    page.fill("[name=match]", pattern)
    page.click("#find button")
    # Until the reply is there the keys that were found before stand in its place.
    page.wait_for_function(ONE_FOUND, arg=pattern.strip("*:"))
    page.locator("#found tr.pick").click()


@needs_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_page(cluster: Cluster, port: int, browser: Any, size: str, theme: str, tmp_path: Path) -> None:
    until(lambda: len(ask(port, "/api/history")[1]) >= 2, "two moments")
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=theme,
        http_credentials={"username": "me", "password": PASSWORD},
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("body[data-ready]")
    assert "3 shards, 1 router" in page.inner_text("#state")
    assert page.locator("#shards tr").count() == 4
    assert page.locator("#charts svg path").count() >= 8
    assert "user:7:profile" in page.inner_text("#hot")
    # Nothing sticks out of the page, nothing of a card lies on another one.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.evaluate(BOXES)
    assert len(boxes) >= 20
    for at, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[at + 1 :]:
            apart = right <= other[0] + 1 or other[2] <= left + 1 or bottom <= other[1] + 1 or other[3] <= top + 1
            assert apart, (left, top, right, bottom, other)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(246, 247, 249)", "dark": "rgb(17, 22, 29)"}[theme]
    folder = Path(PICTURES or tmp_path)
    page.screenshot(path=folder / f"overview-{size}-{theme}.png", full_page=True)
    page.click("[data-page=keys]")
    look_for(page, "cart:*")
    page.wait_for_selector("#one dl")
    assert "apples" in page.inner_text("#one")
    assert "Read only" in page.inner_text("#one")
    page.screenshot(path=folder / f"keys-{size}-{theme}.png", full_page=True)
    # A key is text, whatever it looks like.
    look_for(page, "*img*")
    page.wait_for_selector("#one pre:has-text('<script>alert(1)</script>')")
    assert page.locator("#one img, #found img").count() == 0
    assert not complaints
    context.close()


@needs_browser
def test_a_change_in_the_page(cluster: Cluster, port: int, browser: Any) -> None:
    cluster.kache("set", "draft", "first")
    cluster.kache("config", "set", "console-writes", "yes")
    context = browser.new_context(http_credentials={"username": "me", "password": PASSWORD})
    try:
        page = context.new_page()
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("body[data-ready]")
        page.click("[data-page=keys]")
        look_for(page, "draft")
        page.fill("#one textarea", "second")
        page.click("text=Save")
        until(lambda: cluster.kache("get", "draft").stdout == "second\n", "the change")
        page.click("#one button.danger")
        page.wait_for_selector("text=Deleted.")
        assert cluster.kache("exists", "draft").stdout == "0\n"
    finally:
        context.close()
        cluster.kache("config", "set", "console-writes", "no")
