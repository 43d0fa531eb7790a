"""Glob patterns as KEYS, SCAN MATCH and CONFIG GET understand them: ``*``, ``?``, ``[a-z]``, ``[^x]``, ``\\x``.

Owns the meaning of a pattern; the real server's oddities are part of it (a class without its bracket ends with
the pattern, a range may be written backwards and compares signed bytes, the empty text matches only ``*`` and
the empty pattern). Promises: no recursion, no backtracking over stars. A pattern is cut at its stars into
segments, and each segment is looked for from where the one before ended, so a star never has to be tried twice.
Pure functions over bytes; router and shards call them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

__all__ = ["Matcher", "compile_glob"]

Matcher = Callable[[bytes], bool]

_LONGEST_FOR_RE = 256
"""Longer patterns are matched segment by segment: `re` needs pattern times text steps at worst."""

_Element = int | frozenset[int]
"""What one position accepts: a byte, or any byte of a set."""
_ANY = frozenset(range(256))


@lru_cache(maxsize=256)
def compile_glob(pattern: bytes) -> Matcher:
    """A function that says whether a text matches `pattern`.

    Args:
        pattern: any bytes; there is no invalid pattern.

    Returns:
        A matcher from bytes to bool. Plain texts, prefixes and suffixes cost one comparison; any other
        pattern costs at worst len(text) * len(pattern) / 64 machine operations.
    """
    if pattern == b"*":
        return lambda text: True
    segments = _segments(pattern)
    matcher = _simple(segments) or _general(segments, len(pattern) <= _LONGEST_FOR_RE)
    if matcher(b"") and pattern:
        return lambda text: text != b"" and matcher(text)
    return matcher


def _segments(pattern: bytes) -> list[tuple[_Element, ...]]:
    """The pattern cut at its stars; neighbouring stars count as one."""
    segments: list[tuple[_Element, ...]] = []
    current: list[_Element] = []
    position, size = 0, len(pattern)
    while position < size:
        byte = pattern[position]
        position += 1
        if byte == 0x2A:  # *
            if current or not segments:
                segments.append(tuple(current))
                current = []
        elif byte == 0x3F:  # ?
            current.append(_ANY)
        elif byte == 0x5B:  # [
            members, position = _class(pattern, position)
            current.append(members)
        elif byte == 0x5C and position < size:  # a backslash takes the next byte as it is
            current.append(pattern[position])
            position += 1
        else:
            current.append(byte)
    segments.append(tuple(current))
    return segments


def _class(pattern: bytes, position: int) -> tuple[frozenset[int], int]:
    """The bytes that the class starting at `position` accepts, and the position after it."""
    size = len(pattern)
    negated = position < size and pattern[position] == 0x5E
    position += negated
    members: set[int] = set()
    while position < size and pattern[position] != 0x5D:
        byte = pattern[position]
        if byte == 0x5C and size - position >= 2:
            position += 1
            members.add(pattern[position])
        elif size - position >= 3 and pattern[position + 1] == 0x2D:
            members.update(_range(byte, pattern[position + 2]))
            position += 2
        else:
            members.add(byte)
        position += 1
    return (_ANY - members if negated else frozenset(members)), position + 1


def _range(first: int, last: int) -> list[int]:
    """The bytes from `first` to `last` in either order, compared as C's signed characters."""
    low, high = sorted(byte - 256 if byte > 127 else byte for byte in (first, last))
    return [value % 256 for value in range(low, high + 1)]


def _literal(segment: tuple[_Element, ...]) -> bytes | None:
    """The segment as bytes; None when a position accepts a set."""
    plain = [element for element in segment if isinstance(element, int)]
    return bytes(plain) if len(plain) == len(segment) else None


def _simple(segments: list[tuple[_Element, ...]]) -> Matcher | None:
    """Matchers of a plain text, of a prefix and of a suffix; None for other patterns."""
    if len(segments) > 2:
        return None
    first, last = _literal(segments[0]), _literal(segments[-1])
    if first is None or last is None:
        return None
    if len(segments) == 1:
        return first.__eq__
    if not last:
        return lambda text: text.startswith(first)
    return None if first else lambda text: text.endswith(last)


def _general(segments: list[tuple[_Element, ...]], is_short: bool) -> Matcher:
    """A matcher of any pattern: `re` with atomic groups while that is cheap at worst, segment by segment beyond."""
    if is_short:
        body = _expression(segments[0])
        if len(segments) > 1:
            # An atomic group keeps its first find: no star is ever tried again.
            found = b"".join(b"(?>.*?" + _expression(segment) + b")" for segment in segments[1:-1])
            body += found + b".*" + _expression(segments[-1])
        compiled = re.compile(body, re.DOTALL)
        return lambda text: compiled.fullmatch(text) is not None
    # Hostile patterns repeat one segment ten thousand times.
    unique = {segment: _Searcher(segment) for segment in set(segments)}
    searchers = [unique[segment] for segment in segments]
    return lambda text: _find_segments(text, searchers)


def _expression(segment: tuple[_Element, ...]) -> bytes:
    """A segment as a regular expression."""
    return b"".join(_element_expression(element) for element in segment)


def _element_expression(element: _Element) -> bytes:
    if isinstance(element, int):
        return b"\\x%02x" % element
    if element == _ANY:
        return b"."
    if not element:
        return b"(?!)"
    return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(element)) + b"]"


class _Searcher:
    """Finds one segment in a text by the shift-and method: one big-integer step for each byte of the text."""

    def __init__(self, segment: tuple[_Element, ...]) -> None:
        self.size = len(segment)
        self.literal = _literal(segment)
        masks: list[int] = []
        if self.literal is None:
            everywhere = sum(1 << index for index, element in enumerate(segment) if element == _ANY)
            masks = [everywhere] * 256
            for index, element in enumerate(segment):
                if element != _ANY:
                    for byte in (element,) if isinstance(element, int) else element:
                        masks[byte] |= 1 << index
        self.masks = masks

    def matches_at(self, text: bytes, position: int) -> bool:
        """Whether the segment stands at `position`."""
        if not self.size:
            return True
        return self.find(text, position, position + self.size) == position

    def find(self, text: bytes, start: int, end: int) -> int:
        """Where the segment first stands in text[start:end]; -1 if nowhere."""
        if self.literal is not None:
            return text.find(self.literal, start, end)
        state, masks, final = 0, self.masks, 1 << (self.size - 1)
        for position in range(start, min(end, len(text))):
            state = ((state << 1) | 1) & masks[text[position]]
            if state & final:
                return position + 1 - self.size
        return -1


def _find_segments(text: bytes, searchers: list[_Searcher]) -> bool:
    """Whether the first segment opens `text`, the last closes it, and the others stand between in their order."""
    first, last = searchers[0], searchers[-1]
    if len(searchers) == 1:
        return len(text) == first.size and first.matches_at(text, 0)
    end = len(text) - last.size
    position = first.size
    if end < position or not first.matches_at(text, 0) or not last.matches_at(text, end):
        return False
    for searcher in searchers[1:-1]:
        found = searcher.find(text, position, end)
        if found < 0:
            return False
        position = found + searcher.size
    return True
