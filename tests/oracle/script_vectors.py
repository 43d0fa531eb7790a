"""Scripts at random, and what a real server answered them: the vectors of tests/data/scripts-redis-7.0.15.json.

    redis-server --port 7999 --save "" & python tests/oracle/script_vectors.py 7999 > tests/data/scripts-redis-7.0.15.json

The scripts are the same each time. Each shows what an expression comes to, its type included, or the error; none depends on
the order of a table, on chance, on the time.
"""

from __future__ import annotations

import json
import random
import socket
import sys
from collections.abc import Iterator

__all__ = ["ask", "scripts"]

SEED = 15
COUNT = 900

SHOW = r"""
local function show(v, d)
    d = d or 0
    if type(v) == 'number' then return v ~= v and 'number:nan' or 'number:'..string.format('%.17g', v) end
    if type(v) == 'string' then return 'string:'..v:gsub('.', function(c) return string.format('%02x', c:byte()) end) end
    if type(v) == 'table' then
        if d > 20 then return 'deep' end
        local keys = {} for k in pairs(v) do keys[#keys + 1] = k end
        table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
        local t = {} for _, k in ipairs(keys) do t[#t + 1] = show(k, d + 1)..'='..show(v[k], d + 1) end
        return '{'..table.concat(t, ',')..'}'
    end
    if type(v) == 'userdata' then return 'null' end
    return type(v)..':'..tostring(v)
end
local r = {pcall(function() return EXPRESSION end)}
local t = {} for i = 1, 6 do t[i] = show(r[i]) end
return table.concat(t, ' ')
"""

NUMBERS = (
    "0", "1", "-1", "2", "10", "127", "128", "-128", "-129", "255", "256", "65535", "65536", "-32768", "-32769", "2147483647",
    "2147483648", "-2147483648", "4294967295", "4294967296", "2^53", "-2^53", "2^52+0.5", "1e15", "1e100", "0.1", "-0.5", "1.5",
    "2.5", "3.14159", "1e-7", "1/3", "100000000000000", "123456789012345678",
)  # fmt: skip
STRINGS = (
    "''", "'a'", "'hello world'", "'\\0'", "'\\1\\31\\127\\128\\255'", "'\\n\\t\"\\\\/'", "('x'):rep(31)", "('x'):rep(32)",
    "('y'):rep(255)", "('y'):rep(256)", "('z'):rep(300):sub(1, 280)", "'12'", "' 12 '", "'0x1F'", "'1e3'", "'-'", "'a,b,c'",
)  # fmt: skip
FORMATS = ("b", "B", "h", "H", "i", "I", "l", "L", "i1", "i2", "I3", "i4", "i7", "I8", "f", "d", "s", "c3", "c0", "x", ">", "<", "!4",
           "!8", " ", "=", "T", "i16", "z", "i33", "c")  # fmt: skip
JSON = (
    "[]", "{}", "[1,2,3]", '{"a":1}', '{"a":{"b":[1,{"c":null}]}}', " [ 1 , 2 ] ", "1", "-1.5e3", '"x"', "true", "false", "null",
    '"\\u0041\\u00e9\\u20ac"', '"\\ud83d\\ude00"', '"\\ud83d"', '"\\q"', "[1,]", "[,1]", '{"a"}', '{"a":}', "{1:2}", "[1 2]", "tru", "nul",
    "01", "1.", ".5", "+1", "1e", "0x10", "[1]]", '"abc', "[", "{", "", " ", "[[[[1]]]]", '{"a":1,"a":2}', "[null,1]", '"a\tb"', "-",
    "1e400", "[1e2]", '{"":0}', "Infinity", "-inf", "NaN",
)  # fmt: skip
BITS = ("band", "bor", "bxor", "lshift", "rshift", "arshift", "rol", "ror", "bnot", "bswap", "tobit", "tohex")
TEXTS = ("%d", "%5d", "%-5d|", "%05d", "%x", "%X", "%o", "%c", "%s", "%10s|", "%-10s|", "%.3s", "%f", "%.2f", "%e", "%g", "%.14g", "%q", "%i", "%u",
         "%%", "%a b")  # fmt: skip
PATTERNS = (
    "a",
    ".",
    "%a+",
    "(%w+)",
    "[^,]+",
    "l+",
    "^h",
    "o$",
    "(l)(o)",
    "%d",
    "",
    "%s*",
    "(",
    "[",
    "%",
    "%b()",
    "%f[%w]%w+",
)


def scripts(count: int = COUNT) -> Iterator[str]:
    """Texts of scripts, always the same."""
    draw = random.Random(SEED)
    for number in range(count):
        yield SHOW.replace("EXPRESSION", _KINDS[number % len(_KINDS)](draw))


def _value(draw: random.Random, depth: int = 0) -> str:
    kind = draw.randrange(8 if depth < 3 else 5)
    if kind < 2:
        return draw.choice(NUMBERS)
    if kind < 4:
        return draw.choice(STRINGS)
    if kind == 4:
        return draw.choice(("true", "false", "cjson.null"))
    if kind < 7:
        return "{" + ",".join(_value(draw, depth + 1) for _ in range(draw.randrange(5))) + "}"
    key = draw.choice(("a", "['b c']", "[1]", "[2.5]", "[-1]", "[100]")).replace("a", "a")
    return f"{{{key}={_value(draw, depth + 1)}}}"


def _encode(draw: random.Random) -> str:
    return f"cjson.encode({_value(draw)})"


def _decode(draw: random.Random) -> str:
    return f"cjson.decode([==[{draw.choice(JSON)}]==])"


def _pack(draw: random.Random) -> str:
    return (
        "cmsgpack.pack("
        + ",".join(_value(draw) for _ in range(draw.randrange(1, 4))).replace("cjson.null", "nil")
        + ")"
    )


def _unpack(draw: random.Random) -> str:
    values = ",".join(_value(draw) for _ in range(draw.randrange(1, 4))).replace("cjson.null", "nil")
    cut = draw.choice((":sub(1,-1)", ":sub(1,-1)", ":sub(1,-2)", ":sub(2)"))
    how = draw.choice(("unpack(P)", "unpack_one(P)", "unpack_one(P,1)", "unpack_limit(P,2)", "unpack_limit(P,1,1)"))
    return f"cmsgpack.{how.replace('P', f'cmsgpack.pack({values}){cut}')}"


def _struct(draw: random.Random) -> str:
    form = "".join(draw.choice(FORMATS) for _ in range(draw.randrange(1, 4)))
    values = ",".join(draw.choice((*NUMBERS[:20], "'abcd'", "'a'")) for _ in range(draw.randrange(4)))
    packed = f"struct.pack('{form}'{',' if values else ''}{values})"
    if draw.random() < 0.5:
        return packed
    data = draw.choice((packed, "'\\1\\2\\3\\4\\5\\6\\7\\8\\9\\255'", "'abc\\0def'", "'\\3abcdef'"))
    return draw.choice(
        (f"struct.unpack('{form}', {data})", f"struct.unpack('{form}', {data}, 2)", f"struct.size('{form}')")
    )


def _bit(draw: random.Random) -> str:
    name = draw.choice(BITS)
    count = 1 if name in ("bnot", "bswap", "tobit") else 2
    return f"bit.{name}({','.join(draw.choice((*NUMBERS[:28], *NUMBERS[29:31])) for _ in range(count))})"


def _text(draw: random.Random) -> str:
    value = draw.choice((*NUMBERS[:28], "'abc'", "'12'"))
    return draw.choice((
        f"string.format('{draw.choice(TEXTS)}', {value})",
        f"tostring({draw.choice(NUMBERS)})",
        f"tonumber({draw.choice(STRINGS[:-1])})",
        f"tonumber({draw.choice(STRINGS)}, {draw.choice(('2', '10', '16', '36'))})",
        f"{draw.choice(NUMBERS)} .. ''",
        f"{draw.choice(NUMBERS)} % {draw.choice(NUMBERS[1:12])}",
        f"math.{draw.choice(('floor', 'ceil', 'abs', 'sqrt', 'modf', 'frexp'))}({draw.choice(NUMBERS)})",
        f"math.{draw.choice(('fmod', 'mod', 'pow', 'max', 'min'))}({draw.choice(NUMBERS[:16])},{draw.choice(NUMBERS[1:16])})",
    ))  # fmt: skip


def _search(draw: random.Random) -> str:
    subject = draw.choice(("'hello, world (of) 12'", "'a,b,,c'", "''"))
    pattern = draw.choice(PATTERNS)
    return draw.choice((
        f"string.find({subject}, '{pattern}')",
        f"string.match({subject}, '{pattern}')",
        f"string.gsub({subject}, '{pattern}', '<%0>')",
        f"string.gsub({subject}, '{pattern}', {{h='H'}})",
        f"string.sub({subject}, {draw.randrange(-9, 9)}, {draw.randrange(-9, 9)})",
        f"string.byte({subject}, {draw.randrange(-3, 4)}, {draw.randrange(-3, 6)})",
        f"string.rep({subject}, {draw.randrange(-1, 3)})",
    ))  # fmt: skip


def _list(draw: random.Random) -> str:
    items = "{" + ",".join(draw.choice(("1", "2", "3", "'a'", "'b'")) for _ in range(draw.randrange(6))) + "}"
    return draw.choice((
        f"table.concat({items}, '-')", f"unpack({items})", f"unpack({items}, 2, 4)", f"table.getn({items})", f"#({items})",
        f"table.maxn({items})", f"select('#', unpack({items}))", f"next({items})", f"table.remove({items})", f"table.remove({items}, 1)",
        f"(function() local t = {items} table.insert(t, 1, 'x') return t end)()", f"rawget({items}, 1)", f"type({items})",
        f"(function() local t = {items} table.sort(t, function(a, b) return tostring(a) < tostring(b) end) return t end)()",
    ))  # fmt: skip


def _command(draw: random.Random) -> str:
    key = draw.choice(("'s'", "'l'", "'h'", "'z'", "'none'"))
    words = draw.choice((
        f"'get', {key}", f"'lrange', {key}, 0, -1", f"'hgetall', {key}", f"'zrange', {key}, 0, -1, 'withscores'",
        f"'zscore', 'z', {draw.choice(STRINGS[:3])}", f"'exists', {key}", f"'type', {key}", f"'ttl', {key}", f"'strlen', {key}",
        f"'echo', {draw.choice(NUMBERS)}", f"'echo', {draw.choice(STRINGS)}", "'ping'", "'mget', 's', 'none', 'l'", "'hmget', 'h', 'f', 'g'",
        "'nosuch'", "'get'", "'multi'", "'set', 's'", "'lindex', 'l', 5", "'object', 'encoding', 's'", "'config', 'get', 'x'",
    ))  # fmt: skip
    name = draw.choice(("call", "pcall"))
    resp = draw.choice(("", "redis.setresp(3) "))
    return f"(function() {resp}return redis.{name}({words}) end)()"


_KINDS = (_encode, _decode, _pack, _unpack, _struct, _bit, _text, _search, _list, _command)

DATA = (
    (b"SET", b"s", b"text"), (b"RPUSH", b"l", b"a", b"b"), (b"HSET", b"h", b"f", b"v"), (b"ZADD", b"z", b"1.5", b"a", b"2", b"m"),
)  # fmt: skip
"""What is there before."""


def ask(port: int, words: tuple[bytes, ...]) -> bytes:
    """The raw reply of a server; these are one line, or one string."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
        reply = b""
        while not reply.endswith(b"\r\n") or (
            reply[:1] == b"$" and len(reply) < len(reply.split(b"\r\n")[0]) + int(reply[1:].split(b"\r\n")[0]) + 4
        ):
            reply += connection.recv(1 << 20)
    return reply


def main() -> None:
    port = int(sys.argv[1])
    ask(port, (b"FLUSHALL",))
    for words in DATA:
        ask(port, words)
    replies = [ask(port, (b"EVAL", text.encode("latin-1"), b"0")).decode("latin-1") for text in scripts()]
    json.dump(replies, sys.stdout, indent=0)


if __name__ == "__main__":
    main()
