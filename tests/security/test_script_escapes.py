"""Scripts against the process that runs them: what is known to have broken Redis's and lupa's sandboxes.

After each of them the same interpreter runs the next script, and the process lives.
"""

from __future__ import annotations

import time

import pytest

from kache.shard.scripting.interpreter import FAILED, NOTHING, Interpreter
from kache.shard.scripting.scripts import sha_of

pytestmark = pytest.mark.once

LIMIT = 8 << 20


class Runner:
    """Answers every call with the same."""

    program = None

    def __init__(self, reply: object = b"x") -> None:
        self.reply = reply
        self.ticks = 0
        self.kill_at = 0

    def call(self, words: tuple[bytes, ...]) -> object:
        return self.reply

    def tick(self) -> bool:
        self.ticks += 1
        return bool(self.kill_at) and self.ticks >= self.kill_at

    def set_resp(self, version: int) -> None:
        pass

    def may(self, words: tuple[bytes, ...]) -> bool:
        return True

    def register(self, name: bytes, description: bytes | None, flags: tuple[str, ...]) -> str:
        return "ERR no"


class Sandbox:
    def __init__(self) -> None:
        self.interpreter = Interpreter(LIMIT, "7.4.2")
        self.runner = Runner()

    def run(self, text: str, *args: bytes) -> object:
        """What a script returns; the text of its error behind "E "."""
        source = text.encode("latin-1")
        fault = self.interpreter.remember(sha_of(source), source)
        if fault is not None:
            return "C " + fault.decode("latin-1")
        kind, value = self.interpreter.run(self.runner, sha_of(source), 2, (), args)
        if kind == FAILED:
            return "E " + value.text.decode("latin-1")
        return None if kind == NOTHING else value

    def check(self) -> None:
        """It is as it was."""
        assert self.run("return string.rep('a', 3)..tostring(math.abs(-1))..('x'):upper()") == b"aaa1X"
        assert self.run("return redis.call('x')") == self.runner.reply


@pytest.fixture(scope="module")
def shared() -> Sandbox:
    return Sandbox()


@pytest.fixture
def sandbox(shared: Sandbox) -> Sandbox:
    shared.runner = Runner()
    return shared


ESCAPES = {
    "CVE-2025-46817: unpack over the range of integers": "return unpack({1,2,3}, 0, 2147483647)",
    "the same from below": "return unpack({1,2,3}, -2147483648, 2147483647)",
    "the same over doubles": "return unpack({}, 0, 1e308)",
    "CVE-2024-31449: bit.tohex over its buffer": "return bit.tohex(65535, -2147483648)",
    "CVE-2020-14147, CVE-2015-8080: struct's sizes": "return struct.pack('>I2147483648', '10')",
    "CVE-2018-11219: the same in unpack": "return struct.unpack('c2147483647', 'x')",
    "the same with a previous size": "return struct.unpack('lc0', '\\255\\255\\255\\255\\255\\255\\255\\255x')",
    "a large alignment": "return struct.pack('!65i', 1)",
    "CVE-2018-11218: cmsgpack by depth": "local a = {} for i = 1, 1e5 do a = {a} end return #cmsgpack.pack(a)",
    "the same by its own tables": "local a = {} a.a = a return #cmsgpack.pack(a)",
    "cmsgpack read by depth": "return cmsgpack.unpack(string.rep('\\145', 1e6))",
    "cmsgpack's counts": "return cmsgpack.unpack('\\221\\255\\255\\255\\255')",
    "CVE-2022-24834: cjson's buffer": "return #cjson.encode({string.rep('\"', 4e6)})",
    "cjson by depth": "return cjson.decode(string.rep('[', 1e6))",
    "cjson by its own tables": "local a = {} a.a = a return cjson.encode(a)",
    "CVE-2025-46819: long strings without end": "return loadstring('return [=' .. string.rep('=', 1e5))",
    "CVE-2025-49844: a chunk's name, collected while it is parsed":
        "for i = 1, 50 do loadstring(string.rep('x', i) .. ' = ', ('n'):rep(1e5) .. i) collectgarbage() end return 1",
    "bytecode": "return loadstring('\\27Lua\\82\\0\\1\\4\\8\\4\\8\\0\\25\\147\\13\\10\\26\\10')",
    "bytecode by pieces": "local n = 0 return load(function() n = n + 1 return n == 1 and '\\27Lua' or nil end)",
    "dumping": "return string.dump(function() end)",
    "patterns by depth": "return string.find(string.rep('a', 3e5), string.rep('(a', 3e5))",
    "the format's width": "return string.format('%999999d', 1)",
    "recursion": "local function f() return 1 + f() end return f()",
    "recursion in metamethods": "local t = setmetatable({}, {}) getmetatable(t).__index = t return t.x",
    "recursion in C": "local function f() return pcall(f) end return f()",
    "recursion by gsub": "local function f(s) return (string.gsub(s, '.', f)) end return f('a')",
    "recursion by coroutines": "local function f() return coroutine.wrap(f)() end return f()",
    "sorting in no order": "local t = {} for i = 1, 100 do t[i] = i end table.sort(t, function() return true end) return 1",
}  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES)
def test_known_breaks_end_as_errors_or_values(sandbox: Sandbox, name: str) -> None:
    began = time.process_time()
    sandbox.run(ESCAPES[name])
    assert time.process_time() - began < 30
    sandbox.check()


@pytest.mark.parametrize(
    "name",
    [
        "debug",
        "io",
        "package",
        "require",
        "python",
        "dofile",
        "loadfile",
        "print",
        "newproxy",
        "setfenv",
        "bit32",
        "module",
    ],
)
def test_what_leads_out_is_not_there(sandbox: Sandbox, name: str) -> None:
    assert f"nonexistent global variable '{name}'" in str(sandbox.run(f"return {name}"))
    assert "nil" in str(sandbox.run(f"return type(rawget(_G, '{name}'))"))


@pytest.mark.parametrize(
    "text",
    [
        # CVE-2022-24735, CVE-2025-46818: what one user leaves for another
        "string.rep = nil",
        "redis.call = nil",
        "_G.string = nil",
        "math.abs = nil",
        "getmetatable('').__index = {}",
        "getmetatable('').__metatable = nil",
        "getmetatable('').__index.rep = nil",
        "rawset(_G, 'x', 1)",
        "rawset(string, 'rep', nil)",
        "rawset(redis, 'call', nil)",
        "table.insert(redis, 1)",
        "table.insert(_G, 1)",
        "table.remove(string)",
        "table.sort(math)",
        "setmetatable(_G, nil)",
        "setmetatable(redis, {})",
        "setmetatable(string, {})",
        "for k, v in pairs(_G) do if type(v) == 'table' then v.x = 1 end end",
        "local _, t = pairs(string) t.rep = nil",
        "cjson.encode = nil",
        "cmsgpack.pack = nil",
        "bit.band = nil",
        "struct.pack = nil",
        "coroutine.wrap = nil",
        "os.clock = nil",
        "x = 1",
        "function f() end",
        "KEYS = nil",
        "loadstring('string = 1')()",
        "load(function() end, 'x') _G.load = nil",
    ],
)
def test_nothing_is_left_for_the_next_script(sandbox: Sandbox, text: str) -> None:
    names = "local t = {} for k in pairs(_G) do t[#t+1] = tostring(k) end table.sort(t) return table.concat(t, ' ')"
    parts = (
        "local t = {} for _, m in ipairs({string, table, math, redis, cjson, cmsgpack, bit, struct, coroutine, os}) do "
        "local n = 0 for k in pairs(m) do n = n + 1 end t[#t+1] = n..':'..#m end return table.concat(t, ' ')"
    )
    before = sandbox.run(names), sandbox.run(parts)
    sandbox.run(text)
    assert (sandbox.run(names), sandbox.run(parts)) == before
    sandbox.check()


@pytest.mark.parametrize(
    "value", ["nil", "true", "1", "function() end", "coroutine.create(function() end)", "cjson.null"]
)
def test_basic_types_have_no_metatable_to_poison(sandbox: Sandbox, value: str) -> None:
    assert sandbox.run(f"return type(getmetatable({value}))") == b"nil"
    assert "E " in str(sandbox.run(f"setmetatable({value}, {{}})"))
    sandbox.check()


def test_no_python_object_is_seen(sandbox: Sandbox) -> None:
    walk = """
    local seen, found = {}, {}
    local function look(value, name)
        local kind = type(value)
        if kind == 'userdata' and value ~= cjson.null then found[#found+1] = name end
        if kind == 'table' and not seen[value] then
            seen[value] = true
            for k, v in pairs(value) do look(k, name) look(v, name..'.'..tostring(k)) end
        end
    end
    look(_G, '_G') look(getmetatable(''), 'strings')
    for _, f in ipairs({redis.call, redis.pcall, error}) do
        local ok, e = pcall(f) look(e, 'error')
        ok, e = xpcall(f, function(e) return e end) look(e, 'handler')
    end
    return #found
    """
    assert sandbox.run(walk) == b":0\r\n"
    assert "attempt to index" in str(sandbox.run("return cjson.null.write"))
    assert "attempt to call" in str(sandbox.run("return cjson.null()"))


def test_no_finalizer_runs_outside_of_its_script(sandbox: Sandbox) -> None:
    sandbox.run("for i = 1, 100 do setmetatable({}, {__gc = function() while true do end end}) end return 1")
    for _ in range(10):
        sandbox.interpreter.lua.collect()
        sandbox.check()


LOOPS = [
    "while true do end",
    "repeat until false",
    "for i = 1, 1e15 do end",
    "::a:: goto a",
    "local function f() return f() end f()",
    "while true do pcall(function() while true do end end) end",
    "while true do pcall(error) end",
    "while true do xpcall(function() while true do end end, function() while true do end end) end",
    "local c = coroutine.wrap(function() while true do end end) c()",
    "while true do local c = coroutine.wrap(function() while true do end end) pcall(c) end",
    "while true do local c = coroutine.create(function() pcall(function() while true do end end) end) coroutine.resume(c) end",
    "local t = setmetatable({}, {__index = function() while true do end end}) while true do pcall(function() return t.x end) end",
    "table.sort({3,2,1}, function() while true do end end)",
    "string.gsub('abc', '.', function() while true do end end)",
    "while true do redis.pcall('x') end",
    "while true do loadstring('return 1')() end",
    "local s = 'x' while true do s = s:rep(2):sub(1, 1000) end",
    "load(function() while true do end end)",
    "while true do loadstring(string.rep('x = 1 ', 2000)) end",
    "while true do local s = string.rep('x', 3e6) end",
    "local s = string.rep('x', 1e6) while true do s:gsub('x', 'y') end",
]


@pytest.mark.parametrize("text", LOOPS)
def test_every_loop_can_be_ended(sandbox: Sandbox, text: str) -> None:
    sandbox.run("return 1")
    sandbox.runner.kill_at = 3
    began = time.process_time()  # the load of the machine is not ours
    assert str(sandbox.run(text)).startswith("E ")
    took = time.process_time() - began
    assert sandbox.runner.ticks >= 3
    assert took < 10  # it is a few ms
    sandbox.runner = Runner()
    sandbox.check()


HUNGRY = [
    "return string.rep('x', 2^27)",
    "local t = {} while true do t[#t+1] = string.rep('x', 1000)..#t end",
    "local s = 'x' while true do s = s..s end",
    "local t = {} while true do t = {t} end",
    "local t = {} for i = 1, 1e9 do t[i] = i end",
    "local t = {} while true do pcall(function() while true do t[#t+1] = string.rep('x', 1e5)..#t end end) end",
    "local t = {} while true do t[#t+1] = redis.call('x') .. #t end",
    "local t = {} while true do t[#t+1] = coroutine.create(function() end) end",
    "return table.concat(setmetatable({}, {__index = function() return 'x' end}), ('x'):rep(1e6), 1, 1e9)",
    "local t = {} while true do t[#t+1] = function() return t end end",
]


@pytest.mark.parametrize("text", HUNGRY)
def test_memory_has_an_end(sandbox: Sandbox, text: str) -> None:
    sandbox.runner.kill_at = 100
    assert "E " in str(sandbox.run(text))
    assert sandbox.interpreter.lua.used < LIMIT + (2 << 20)
    sandbox.runner.kill_at = 0
    sandbox.check()


def test_at_the_limit_a_thousand_times() -> None:
    """What Python puts into an interpreter that is full: replies of every size and shape, into a script that keeps all of them
    and catches every error. Nothing that Python pushes is protected by Lua, and one that failed would end the process."""
    sandbox = Sandbox()
    sandbox.interpreter.set_limit(1 << 19)
    shapes: list[object] = [
        b"y" * 10,
        b"y" * 5000,
        b"y" * 100_000,
        [b"a"] * 50,
        {b"k": [1, 2, [b"z" * 100]]},
        7,
        None,
        [[1]] * 500,
    ]
    for number in range(1000):
        sandbox.runner = Runner(shapes[number % len(shapes)])
        sandbox.runner.kill_at = 40
        step = 1 << (number % 12)
        text = (
            f"local t, n = {{}}, 0 local function more() while true do n = n + 1 t[n] = {{redis.call('x', n), ('p'):rep({step})..n}} end end "
            "while true do pcall(more) end"
        )
        assert str(sandbox.run(text)).startswith("E ")
        assert sandbox.interpreter.has_room(1 << 17)
    sandbox.runner = Runner()
    sandbox.check()


def test_arguments_and_texts_that_do_not_fit_are_refused(sandbox: Sandbox) -> None:
    assert "not enough memory" in str(sandbox.run("return #ARGV[1]", b"x" * (LIMIT + 1)))
    assert sandbox.run("return #ARGV", *[b"x"] * 5000) == b":5000\r\n"
    sandbox.check()
