# cython: language_level=3
"""Declarations of the interpreter for what runs scripts (see lua.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t

from kache.wire.codec cimport Buffer, Span

from ..engine.engine cimport Program

cdef extern from *:
    """
    #ifndef KACHE_LUA
    #define KACHE_LUA
    typedef struct lua_State lua_State;
    typedef int (*kache_lua_function)(lua_State *);
    #endif
    """
    ctypedef struct lua_State:
        pass
    ctypedef int (*Function "kache_lua_function")(lua_State*) noexcept nogil

cdef enum:
    # Kinds of results.
    NOTHING = 0
    TEXT = 1
    ENCODED = 2
    FAILED = 3

cdef struct Bytes:
    char* data
    size_t size, room

cdef struct Value:
    # What goes between Python and Lua.
    int kind                    # Lua's type; TABLE for all that is kept in the registry: `number` is its place
    double number
    const char* data
    size_t size

cdef struct Host:
    # What the functions that Lua calls know of the interpreter.
    size_t used, most           # bytes Lua has and may have
    size_t limit                # bytes of a result
    void* lua                   # the Lua object, borrowed
    lua_State* L
    bint stopped                # the script ends here, whatever it catches
    bint asked                  # its runner was asked whether it may go on
    int most_instructions       # between two looks at the clock
    bint passed                 # keys and arguments are passed to what runs, instead of being found by it
    const char* reason          # for what, if it is not what was raised
    int64_t looked_ns           # when the hook came last
    int64_t ticked_ns           # when somebody was asked last whether the script may go on
    int resp, script_resp       # the client's protocol, and the one that the script has chosen
    int kind                    # of the result
    Bytes out
    Value* values               # passed one way or the other
    int count, room
    int callback                # which function of Python is called
    Span* words                 # of a command
    char* digits                # of those that are numbers
    int words_room
    Span* arguments             # of a script: its keys, and what is behind them
    int keys, arguments_count
    int script, names, begin, fault # places in the registry: of what runs, of what a script finds, of functions of sandbox.lua


cdef class Reference


cdef class Lua:
    """One state of Lua; see lua.pyx."""
    cdef Host host
    cdef readonly size_t base           # bytes of it before the first script
    cdef list callbacks
    cdef object kept                    # what the values that are passed point to
    cdef public object runner           # who answers what the script asks
    cdef public Program program         # who executes its commands; None: the runner does
    cdef public object elsewhere        # why it had to end before it began
    cdef Buffer reply
    cdef tuple scripts
    cdef void free_all(self) noexcept
    cdef int reserve(self, Py_ssize_t n) except -1
    cdef object value_of(self, Value* value)
    cdef int keep(self, tuple values) except -1
    cdef int set_value(self, Value* value, object given) except -1
    cdef int protect(self, Function function) except -1
    cdef object call(self, function, bytes name, tuple args)
    cdef object get(self, Reference table, bytes name)
    cdef bytes text_on_top(self)
    cdef void begin(self) noexcept
    cdef int run(self, int script, Span* arguments, Py_ssize_t count, Py_ssize_t keys, int resp) except -1
    cdef object failure(self)
    cdef object outcome(self, int kind)
    cdef bint is_half_full(self) noexcept
    cdef bytes part_of_fault(self, int n)
    cdef int line_of_fault(self) noexcept
    cdef int refuse(self, error) noexcept


cdef class Reference:
    """A function or a table of Lua."""
    cdef Lua lua
    cdef readonly int place
