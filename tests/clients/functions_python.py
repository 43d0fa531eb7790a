"""Functions by redis-py's own methods. Run: python functions_python.py PORT."""

from __future__ import annotations

import sys

import redis
from redis.exceptions import ResponseError

CODE = """#!lua name=mylib
redis.register_function('myfunc', function(keys, args) return {#keys, #args, redis.call('incr', keys[1])} end)
redis.register_function{function_name='peek', description='reads', flags={'no-writes'},
                        callback=function(keys) return redis.call('get', keys[1]) end}
"""
FIRST = [["myfunc", None, []], ["peek", "reads", ["no-writes"]]]


def functions_of(client: redis.Redis, protocol: int) -> dict[str, list[list[object]]]:
    """{library: [[name, description, flags], …]} as FUNCTION LIST tells them."""
    found = {}
    for library in client.function_list(withcode=True):
        if protocol == 2:
            library = dict(zip(library[::2], library[1::2], strict=True))
        assert library["engine"] == "LUA" and library["library_code"].startswith("#!lua name=")
        functions = []
        for function in library["functions"]:
            if protocol == 2:
                function = dict(zip(function[::2], function[1::2], strict=True))
            functions.append([function["name"], function["description"], sorted(function["flags"])])
        found[library["library_name"]] = sorted(functions)
    return found


def main(port: int) -> None:
    for protocol in (2, 3):
        client = redis.Redis(port=port, protocol=protocol, decode_responses=True)
        raw = redis.Redis(port=port, protocol=protocol)
        client.flushall()
        assert client.function_flush()
        assert client.function_load(CODE) == "mylib"
        try:
            client.function_load(CODE)
            raise AssertionError("a library was loaded twice")
        except ResponseError as error:
            assert "already exists" in str(error)
        assert client.function_load(CODE, replace=True) == "mylib"
        assert client.fcall("myfunc", 1, "k", "a", "b") == [1, 2, 1]
        assert client.fcall_ro("peek", 1, "k") == "1"
        assert functions_of(client, protocol) == {"mylib": FIRST}
        assert client.function_list(library="nosuch*") == []
        pipeline = client.pipeline()
        pipeline.fcall("myfunc", 1, "k")
        pipeline.fcall_ro("peek", 1, "k")
        assert pipeline.execute() == [[1, 0, 2], "2"]
        payload = raw.function_dump()
        assert client.function_delete("mylib")
        assert functions_of(client, protocol) == {}
        assert raw.function_restore(payload)
        assert raw.function_restore(payload, "REPLACE")
        assert functions_of(client, protocol) == {"mylib": FIRST}
        assert client.function_flush("ASYNC")
        try:
            client.fcall("myfunc", 0)
            raise AssertionError("a function that is gone was called")
        except ResponseError as error:
            assert "Function not found" in str(error)
        stats = client.function_stats()
        assert "running_script" in stats
        try:
            client.function_kill()
            raise AssertionError("nothing was running")
        except ResponseError as error:
            assert "No scripts in execution" in str(error)
    print("fine")


if __name__ == "__main__":
    main(int(sys.argv[1]))
