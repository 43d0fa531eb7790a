"""Replies of commands as scripts see them: what lupa makes tables of.

==============================  =====================================  =======================================
a reply                         in RESP2's shapes                      in RESP3's
==============================  =====================================  =======================================
null                            false                                  nil
status, error                   {ok = …}, {err = …}                    the same
true, false                     1, 0                                   true, false
double                          a string                               {double = …}
map                             a flat array                           {map = {key = value}}
set                             an array                               {set = {member = true}}
big number, verbatim string     a string                               {big_number = …}, {verbatim_string = {…}}
==============================  =====================================  =======================================
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kache.errors import CommandError
from kache.replies import (
    NULL_ARRAY,
    BigNumber,
    DecimalDouble,
    Encoded,
    Keyed,
    Missing,
    Pairs,
    SetReply,
    Verbatim,
    format_double,
)
from kache.wire.codec import decode_reply

__all__ = ["to_lua"]


def to_lua(value: Any, resp: int) -> Any:
    """Byte strings, ints, bools, None, and lists and dicts of them."""
    kind = type(value)
    if kind is bytes or kind is int:
        return value
    if value is None or value is NULL_ARRAY:
        return None if resp == 3 else False
    if kind is list or kind is tuple:
        return _list(value, resp)
    if kind is str:
        return {b"ok": value.encode()}
    if kind is bool:
        return value if resp == 3 else int(value)
    if kind is Missing:
        return to_lua(value.value, resp)
    return _rare(value, resp)


def _list(values: Iterable[Any], resp: int) -> Any:
    found = [to_lua(each, resp) for each in values]
    if None in found:
        # Nil is what is not there.
        return {place: each for place, each in enumerate(found, 1) if each is not None}
    return found


def _inside(value: Any, resp: int) -> Any:
    found = to_lua(value, resp)
    return False if found is None else found


def _rare(value: Any, resp: int) -> Any:
    if isinstance(value, CommandError):
        return {b"err": value.message.encode("utf-8", "surrogateescape")}
    if isinstance(value, (dict, Keyed, Pairs)):
        return _pairs(value, resp)
    if isinstance(value, SetReply):
        if resp == 3:
            return {b"set": {_key(each): True for each in value}}
        return _list(value, resp)
    if isinstance(value, float):
        return {b"double": value} if resp == 3 else format_double(value)
    if isinstance(value, DecimalDouble):
        return {b"double": value.value} if resp == 3 else value.text
    if isinstance(value, BigNumber):
        return {b"big_number": value.digits} if resp == 3 else value.digits
    if isinstance(value, Verbatim):
        text = {b"string": value.text, b"format": b"txt"}
        return {b"verbatim_string": text} if resp == 3 else value.text
    if isinstance(value, Encoded):
        mark = b"*%d\r\n" % value.count
        return to_lua(decode_reply(mark + b"".join(value.chunks))[0], resp)
    if isinstance(value, (list, tuple)):
        return _list(value, resp)
    return bytes(value)


def _key(value: Any) -> Any:
    return value if type(value) in (bytes, int, float) else str(value).encode()


def _pairs(value: dict[Any, Any] | Keyed | Pairs, resp: int) -> Any:
    if isinstance(value, Pairs):
        if resp == 3:
            return [[_inside(key, resp), _inside(each, resp)] for key, each in value.pairs]
        return [part for key, each in value.pairs for part in (_inside(key, resp), _inside(each, resp))]
    pairs = list(value.items()) if isinstance(value, dict) else value.pairs
    if resp == 3:
        return {b"map": {_key(key): _inside(each, resp) for key, each in pairs}}
    if isinstance(value, Keyed):
        return [[_inside(key, resp), _inside(each, resp)] for key, each in pairs]
    return [part for key, each in pairs for part in (_inside(key, resp), _inside(each, resp))]
