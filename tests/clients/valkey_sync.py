"""valkey-py as an application uses it. Run: python valkey_sync.py PORT PROTOCOL."""

from __future__ import annotations

import sys

import valkey


def main() -> None:
    port, protocol = int(sys.argv[1]), int(sys.argv[2])
    client = valkey.Valkey(port=port, protocol=protocol, decode_responses=True, socket_timeout=60)
    client.flushall()
    assert client.set("a", 1) and client.get("a") == "1"
    assert client.mset({"x{1}": 1, "y": 2, "z": 3}) and client.mget("x{1}", "y", "z", "w") == ["1", "2", "3", None]
    assert client.hset("h", mapping={"f": "v"}) == 1 and client.hgetall("h") == {"f": "v"}
    assert client.zadd("board", {"ann": 3, "bob": 1}) == 2
    assert client.zrevrange("board", 0, 0) == ["ann"]
    assert client.geoadd("geo", (13.361389, 38.115556, "Palermo")) == 1
    assert client.lpush("q", 1, 2, 3) == 3 and client.rpop("q") == "1"
    assert list(client.blpop(["none", "q"], timeout=1)) == ["q", "3"] and client.blpop("none", timeout=0.01) is None
    assert client.blmove("q", "r{2}", timeout=1) == "2" and client.bzpopmin("none", timeout=0.01) is None
    assert client.rpush("q", 2) == 1
    assert client.touch("a", "h", "none") == 2
    assert client.expire("a", 100) and 0 < client.pttl("a") <= 100_000
    assert client.copy("h", "h2") and client.hget("h2", "f") == "v"
    assert client.unlink("a", "h", "h2", "none") == 3
    assert client.flushall()
    print(f"valkey-py {valkey.__version__}, RESP{protocol}: fine")


main()
