"""A state of Lua 5.2 without a Python object in it: what scripts ask for goes from Lua's stack to the shard and back as bytes.

    redis.call ─► perform: words as spans ─► Program.run: the compiled command ─► bytes of its reply ─► push_reply: Lua values
    Lua.run: KEYS, ARGV ─► the script ─► put_result: bytes of the reply, in the protocol asked for

Promises. **Errors of Lua leave by longjmp.** So no function that Lua calls, and none that may raise such an error, holds a
reference to a Python object or memory of its own: they are `nogil`, and what Python has to do for them is done in functions of
their own (`…_held`), which come back with a number. Everything that takes memory from Lua happens inside of a protected call.

**Memory.** Lua gets `limit` bytes beside what it has at the start, from an allocator that counts them; it collects when it
gets no more, and if that is not enough the script ends with "not enough memory".

**Time.** The hook comes every so many instructions, fewer of them where they take long (`next_count`), so that a script whose
steps are slow is looked at as often as one whose steps are fast. It lets other threads run, and asks the runner whether to go on.

The GIL is held all the time; `nogil` is said to have the compiler refuse Python where an error of Lua may pass.
"""

import importlib.util
import logging

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MIN, INT64_MAX
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc, realloc, strtod
from libc.string cimport memchr, memcpy, memmove, memset

from kache.errors import CommandError
from kache.wire.clock cimport monotonic_ns
from kache.wire.codec cimport RESP2, RESP3, format_int64, put_error, put_reply

from ..engine.engine cimport Words

from ..engine.engine import KeyElsewhere

__all__ = ["Lua", "LuaError", "Reference"]

log = logging.getLogger("kache.shard")

include "lua_api.pxi"
include "lua_replies.pxi"
include "lua_results.pxi"

cdef enum:
    MOST_INSTRUCTIONS = 1000            # between two looks at the clock
    FEW_INSTRUCTIONS = 16               # the same where values are so large that one of them may take long
    LARGE_BLOCK = 131072                # bytes that such a value takes
    TICK_NS = 1000000                   # between two questions whether the script may go on
    MOST_RESULTS = 16                   # of a function that Python calls
    DIGITS = 32                         # bytes of a number as text, at most
    STACK = 40                          # places that a call has for sure
    GARBAGE_PERCENT = 400               # of what is in use: so much more is there before a collection begins

    # What became of a command.
    REPLIED = 0
    STOPPED = 1

cdef const char* MEMORY_TEXT = "not enough memory"
cdef const char* STOPPED_TEXT = "Script stopped"


class LuaError(Exception):
    """What a function of Lua has raised, or had no memory for; its text is `args[0]`, bytes."""


# What is passed beside Lua's own types; numbers of functions: those of this file come before those of Python.
cdef enum:
    CALLBACK = 100
    FIRST_CALLBACK = 7


include "lua_calls.pxi"


# The state ---------------------------------------------------------------------------------------------------
cdef class Reference:
    """A function or a table of Lua: called with what `Lua.execute` takes; ``reference[name]`` is what a table has there."""

    def __call__(self, *args):
        return self.lua.call(self, b"", args)

    def __getitem__(self, bytes name not None):
        return self.lua.get(self, name)

    def __dealloc__(self):
        if self.lua is not None and self.lua.host.L != NULL:
            lua.unref(self.lua.host.L, REGISTRY, self.place)


cdef class Lua:
    """A state of Lua with its own libraries, without a limit at first. ImportError where lupa has none that fits."""

    CALL, PCALL, IS_STOPPED, STOP, STARVE, LOOK, SET_RESP = range(FIRST_CALLBACK)
    """Functions of this file, for `native`."""

    def __cinit__(self):
        load_lua()
        memset(&self.host, 0, sizeof(Host))
        self.host.most_instructions = MOST_INSTRUCTIONS
        self.host.lua = <void*> self
        self.host.most = self.host.limit = <size_t> INT64_MAX
        self.callbacks = []
        self.reply = Buffer()
        self.reserve(MOST_RESULTS)
        self.host.L = lua.newstate(allocate, &self.host)
        if self.host.L == NULL:
            raise MemoryError("no memory for an interpreter")
        self.protect(open_libraries)
        lua.sethook(self.host.L, hook, BY_COUNT, MOST_INSTRUCTIONS)

    def __dealloc__(self):
        self.free_all()

    def close(self):
        """Gives all memory back; nothing is to be asked of it any more."""
        self.free_all()
        self.callbacks.clear()
        self.runner = self.program = self.kept = None

    cdef void free_all(self) noexcept:
        if self.host.L != NULL:
            lua.close(self.host.L)
        free(self.host.out.data)
        free(self.host.values)
        free(self.host.words)
        free(self.host.digits)
        memset(&self.host, 0, sizeof(Host))

    cdef int reserve(self, Py_ssize_t n) except -1:
        """Room for so many values."""
        cdef Value* values
        if n > self.host.room:
            values = <Value*> realloc(self.host.values, n * sizeof(Value))
            if values == NULL:
                raise MemoryError("no memory for the arguments of a script")
            self.host.values = values
            self.host.room = <int> n
        return 0

    # Memory ---------------------------------------------------------------------------------------------
    @property
    def used(self):
        """Bytes of what scripts have made."""
        return <int64_t> self.host.used - <int64_t> self.base

    def set_limit(self, int64_t limit):
        """How many there may be, from here on; what is there at the first call is not among them."""
        if self.base == 0:
            self.base = self.host.used
        self.host.limit = <size_t> limit
        self.host.most = self.base + <size_t> limit

    def collect(self):
        """Frees what is garbage."""
        self.protect(collect)

    # Values ---------------------------------------------------------------------------------------------
    def native(self, int number):
        """What makes one of the functions of this file an argument of `execute`."""
        return Native(number)

    cdef object value_of(self, Value* value):
        cdef Reference found
        if value.kind == STRING:
            return PyBytes_FromStringAndSize(value.data, value.size)
        if value.kind == NUMBER:
            return value.number
        if value.kind == BOOLEAN:
            return value.number != 0
        if value.kind != TABLE or value.number == 0:
            return None
        found = Reference.__new__(Reference)
        found.lua = self
        found.place = <int> value.number
        return found

    cdef int keep(self, tuple values) except -1:
        """They are what is passed next."""
        cdef Py_ssize_t i
        self.reserve(len(values))
        self.kept = values
        self.host.count = <int> len(values)
        for i in range(len(values)):
            self.set_value(&self.host.values[i], values[i])
        return 0

    cdef int set_value(self, Value* value, object given) except -1:
        kind = type(given)
        if kind is bytes:
            value.kind = STRING
            value.data = PyBytes_AS_STRING(<bytes> given)
            value.size = <size_t> PyBytes_GET_SIZE(<bytes> given)
        elif given is None:
            value.kind = NIL
        elif kind is bool:
            value.kind = BOOLEAN
            value.number = given
        elif kind is int or kind is float:
            value.kind = NUMBER
            value.number = given
        elif kind is Reference:
            value.kind = TABLE
            value.number = (<Reference> given).place
        elif kind is Native:
            value.kind = CALLBACK
            value.number = given.number
        elif callable(given):
            value.kind = CALLBACK
            value.number = FIRST_CALLBACK + len(self.callbacks)
            self.callbacks.append(given)
        else:
            raise TypeError(f"{kind.__name__} is nothing that Lua is given")
        return 0

    # Calling --------------------------------------------------------------------------------------------
    cdef int protect(self, Function function) except -1:
        """The status of a call without arguments. Its results, or what it raised, stay on the stack."""
        if self.host.L == NULL:
            raise LuaError(b"the interpreter was closed")
        if not lua.checkstack(self.host.L, STACK):
            raise MemoryError("no memory for the stack of an interpreter")
        lua.pushcclosure(self.host.L, function, 0)
        return lua.pcallk(self.host.L, 0, ALL_RESULTS, 0, 0, NULL)

    def execute(self, bytes source not None, *args, bytes name=b"=kache"):
        """What the text of a program answers, called with byte strings, numbers, booleans, None, References, functions of
        Python (which get and answer byte strings, numbers, booleans and None), and those of `native`. One value, or a tuple
        of several. Raises LuaError."""
        return self.call(source, name, args)

    cdef object call(self, function, bytes name, tuple args):
        cdef int top = lua.gettop(self.host.L) if self.host.L != NULL else 0, i, status
        self.keep((function, name, *args))
        status = self.protect(call_values)
        try:
            if status:
                raise LuaError(self.text_on_top())
            found = tuple([self.value_of(&self.host.values[i]) for i in range(self.host.count)])
        finally:
            lua.settop(self.host.L, top)
            self.kept = None
        return found if len(found) > 1 else found[0] if found else None

    cdef object get(self, Reference table, bytes name):
        cdef int top = lua.gettop(self.host.L)
        self.keep((table, name))
        try:
            if self.protect(get_field):
                raise LuaError(self.text_on_top())
            return self.value_of(&self.host.values[0])
        finally:
            lua.settop(self.host.L, top)

    cdef bytes text_on_top(self):
        cdef size_t n
        cdef const char* text
        if lua.type(self.host.L, -1) != STRING:
            return b""
        text = lua.tolstring(self.host.L, -1, &n)
        return PyBytes_FromStringAndSize(text, n)

    # Scripts --------------------------------------------------------------------------------------------
    def take(self, Reference names not None, Reference begin not None, Reference fault not None):
        """The table that scripts find KEYS and ARGV in, what is called before each, and what is asked about its errors."""
        self.scripts = (names, begin, fault)
        self.host.names, self.host.begin, self.host.fault = names.place, begin.place, fault.place

    cdef void begin(self) noexcept:
        """Nothing is left of what ran before."""
        self.host.asked = False
        self.host.script_resp = 2
        self.host.most_instructions = MOST_INSTRUCTIONS
        self.host.looked_ns = self.host.ticked_ns = monotonic_ns()
        self.elsewhere = None

    cdef int run(self, int script, Span* arguments, Py_ssize_t count, Py_ssize_t keys, int resp) except -1:
        """What kind of result the script at this place of the registry has; `host.out` are the bytes of its reply, in `resp`.
        FAILED: `failure` is to be asked what has happened."""
        cdef Host* host = &self.host
        cdef lua_State* L = host.L
        cdef int top = lua.gettop(L)
        self.begin()
        host.script, host.resp = script, resp
        host.arguments, host.arguments_count, host.keys = arguments, <int> count, <int> keys
        if not lua.checkstack(L, STACK):
            raise MemoryError("no memory for the stack of an interpreter")
        lua.rawgeti(L, REGISTRY, host.fault)
        lua.pushcclosure(L, run_script, 0)
        if lua.pcallk(L, 0, 0, top + 1, 0, NULL):
            return FAILED
        lua.settop(L, top)
        return host.kind

    cdef object failure(self):
        """(text, source, line) of the script that has just failed."""
        cdef lua_State* L = self.host.L
        cdef size_t n
        found = b"", b"", 0
        if self.host.reason != NULL:
            found = b"ERR " + self.host.reason, b"", 0
        elif lua.type(L, -1) == TABLE:
            found = self.part_of_fault(1), self.part_of_fault(2), self.line_of_fault()
        else:
            found = b"ERR " + (self.text_on_top() or MEMORY_TEXT), b"", 0
        lua.settop(L, -3)
        if self.host.stopped:
            self.host.stopped = False
            lua.sethook(L, hook, BY_COUNT, MOST_INSTRUCTIONS)
        self.host.reason = NULL
        return found

    cdef bytes part_of_fault(self, int n):
        lua.rawgeti(self.host.L, -1, n)
        try:
            return self.text_on_top()
        finally:
            lua.settop(self.host.L, -2)

    cdef int line_of_fault(self) noexcept:
        cdef int line
        lua.rawgeti(self.host.L, -1, 3)
        line = <int> lua.tonumberx(self.host.L, -1, NULL)
        lua.settop(self.host.L, -2)
        return line

    cdef object outcome(self, int kind):
        """(kind, the value) of what has just run: None, a byte string, the bytes of a reply, or (text, source, line)."""
        if kind == FAILED:
            return kind, self.failure()
        if kind == NOTHING:
            return kind, None
        found = PyBytes_FromStringAndSize(self.host.out.data, self.host.out.size)
        return kind, found[found.index(b"\n") + 1:len(found) - 2] if kind == TEXT else found

    def run_words(self, Reference script not None, tuple keys not None, tuple args not None, int resp, *, bint passed=False):
        """`outcome` of a script, which finds its keys and arguments, or of a function that they are `passed` to."""
        cdef Words words = Words(keys + args)
        self.host.passed = passed
        try:
            return self.outcome(self.run(script.place, words.spans, words.count, len(keys), resp))
        finally:
            self.host.passed = False

    cdef bint is_half_full(self) noexcept:
        return <int64_t> self.host.used - <int64_t> self.base > <int64_t> self.host.limit // 2

    cdef int refuse(self, error) noexcept:
        """What a command has raised, as its reply; or the script ends, and begins once more when what it needs is at hand."""
        self.reply.clear()
        try:
            if isinstance(error, KeyElsewhere) and self.program is not None and not self.program.changed:
                self.elsewhere = error
                return STOPPED
            if isinstance(error, CommandError):
                text = error.message.encode("utf-8", "surrogateescape")
            else:
                log.error("internal error in a call of a script", exc_info=error)
                text = b"ERR internal error"
            put_error(self.reply, RESP2, text)
        except BaseException:
            return STOPPED
        return REPLIED


class Native:
    """A function of this file that Lua is given."""

    def __init__(self, number):
        self.number = number
