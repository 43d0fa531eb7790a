"""The error of a script or function that was killed: byte for byte what redis-server 7.0.15 said of the same text."""

from __future__ import annotations

import hashlib

import pytest

from kache.shard.shard import Shard

NOW = 1_700_000_000_000
KILLED = b"-ERR Script killed by user with SCRIPT KILL... script: %b, on %b.\r\n"

SCRIPTS = {
    b"while true do end": b"@user_script:1",
    b"\n\nlocal x=0\nwhile true do x=x+1\nend": b"@user_script:4",
    b"while true do pcall(function() while true do end end) end": b"@user_script:1",
    b"while true do redis.call('get','x') end": b"@user_script:1",
    b"while true do redis.pcall('get','x') end": b"@user_script:1",
    b"local function f() while true do end end\n\n f()": b"@user_script:1",
    b"local function f()\n while true do end end\n\n return f()": b"@user_script:2",
    b"#!lua\nwhile true do end": b"@user_script:2",
    b"repeat until false": b"@user_script:1",
    b"local t={} table.sort({3,2,1}, function(a,b) while true do end end)": b"@user_script:1",
    b"string.gsub('aaa','a',function() while true do end end)": b"@user_script:1",
    b"local f=loadstring('while true do end') f()": b"while true do end:1",
    b"local f=loadstring('while true do end','@chunk') f()": b"@chunk:1",
    b"local co=1 for i=1,1e18 do end": b"@user_script:1",
}
"""A text, and where it was."""

LIBRARY = b"""#!lua name=l
redis.register_function('loop', function(k,a)
 while true do end
end)
redis.register_function('ploop', function(k,a)
 local r = redis.pcall('get','x')
 while true do pcall(function() while true do end end) end
end)
redis.register_function{function_name='ro', callback=function(k,a) while true do redis.call('get','x') end end, flags={'no-writes'}}
local function helper()
  while true do end
end
redis.register_function('help', function(k,a) helper() end)
redis.register_function('tail', function(k,a) return helper() end)
redis.register_function('may', function(k,a)
 while a[1] do end
end)
"""
FUNCTIONS = {b"loop": 3, b"ploop": 7, b"ro": 9, b"help": 11, b"tail": 11}


@pytest.fixture
def shard() -> Shard:
    """Each script is killed as soon as it is seen."""
    made = Shard(now_ms=NOW)
    page = made.scripts.page
    show = page.show

    def shown(*words: object) -> None:
        show(*words)  # type: ignore[arg-type]  # what it is given
        page.kill(0)

    page.show = shown  # type: ignore[method-assign]  # instead of a router beside it
    return made


@pytest.mark.parametrize("text", SCRIPTS)
def test_a_script(shard: Shard, text: bytes) -> None:
    sha = hashlib.sha1(text).hexdigest().encode()
    said = KILLED % (sha, SCRIPTS[text])
    for words in ([b"EVAL", text, b"1", b"k", b"a"], [b"EVALSHA", sha, b"0"], [b"EVALSHA_RO", sha, b"0"]):
        assert shard.execute(words) == said, words


@pytest.mark.parametrize("call", [b"call", b"pcall"])
def test_one_that_is_killed_just_before_it_writes_has_not_written(call: bytes) -> None:
    shard = Shard(now_ms=NOW)
    page = shard.scripts.page
    show_written = page.show_written
    heard: list[bool] = []

    def written(*words: object) -> None:
        """A router has seen that it has not, and says so now."""
        heard.append(page.kill(0))
        show_written(*words)  # type: ignore[arg-type]  # what it is given

    page.show_written = written  # type: ignore[method-assign]  # instead of a router beside it
    text = b"local n=0 while n<3e6 do n=n+1 end redis." + call + b"('set','k','v') while n<1e12 do n=n+1 end return n"
    sha = hashlib.sha1(text).hexdigest().encode()
    assert shard.execute([b"EVAL", text, b"1", b"k"]) == KILLED % (sha, b"@user_script:1")
    assert heard[0]
    assert shard.execute([b"EXISTS", b"k"]) == b":0\r\n"


def test_a_kill_that_comes_too_late_is_told_so() -> None:
    shard = Shard(now_ms=NOW)
    page = shard.scripts.page
    text = b"local n=0 while n<3e6 do n=n+1 end redis.call('set','k','v') redis.call('get','k') return n"
    assert shard.execute([b"EVAL", text, b"1", b"k"]) == b":3000000\r\n"
    assert page.has_written(0) and not page.kill(0)


def test_a_script_that_has_run_before(shard: Shard) -> None:
    text = b"local n = 0\n\nwhile ARGV[1] do n = n + 1 end return n"
    sha = hashlib.sha1(text).hexdigest().encode()
    for _ in range(3):
        assert shard.execute([b"EVAL", text, b"0"]) == b":0\r\n"
        assert shard.execute([b"EVALSHA", sha, b"0", b"x"]) == KILLED % (sha, b"@user_script:3")


@pytest.mark.parametrize(
    "text", [b"pcall(function() while true do end end) return 1", b"return pcall(function() while true do end end)"]
)
def test_one_that_catches_it_ends_all_the_same(shard: Shard, text: bytes) -> None:
    """A real server ends it at its next line: what follows on the same one is still executed there."""
    assert shard.execute([b"EVAL", text, b"0"]) == KILLED % (hashlib.sha1(text).hexdigest().encode(), b"@user_script:1")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function(shard: Shard, name: bytes) -> None:
    shard.functions.take([("l", LIBRARY, 1)])
    for command in (b"FCALL", b"fcall_ro")[: 2 if name == b"ro" else 1]:
        assert shard.execute([command, name, b"1", b"k"]) == KILLED % (name, b"@user_function:%d" % FUNCTIONS[name])


def test_a_function_that_has_run_before(shard: Shard) -> None:
    shard.functions.take([("l", LIBRARY, 1)])
    for _ in range(3):
        assert shard.execute([b"FCALL", b"may", b"0"]) == b"$-1\r\n"
        assert shard.execute([b"FCALL", b"may", b"0", b"x"]) == KILLED % (b"may", b"@user_function:16")
