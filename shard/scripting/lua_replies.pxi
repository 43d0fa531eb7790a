# Replies of commands as scripts see them, out of the protocol's own bytes, as a real server makes them. All of it runs inside of
# a protected call: what does not fit into the interpreter's memory ends there.
#
#     a reply                         in RESP2's shapes        in RESP3's
#     null                            false                    nil
#     status, error                   {ok = …}, {err = …}      the same
#     true, false                     1, 0                     true, false
#     double                          a string                 {double = …}
#     map                             a flat array             {map = {key = value}}
#     set                             an array                 {set = {member = true}}
#     big number, verbatim string     a string                 {big_number = …}, {verbatim_string = {…}}

cdef struct Reader:
    const char* at
    const char* end
    bint resp3


cdef inline const char* read_line(Reader* reader, size_t* n) noexcept nogil:
    """What is before the end of the line; the reader stands behind it."""
    cdef const char* start = reader.at
    cdef const char* end = <const char*> memchr(start, c"\r", reader.end - start)
    if end == NULL:
        end = reader.end
    n[0] = end - start
    reader.at = end + 2
    return start


cdef int64_t read_count(Reader* reader) noexcept nogil:
    cdef size_t n, i = 0
    cdef const char* text = read_line(reader, &n)
    cdef int64_t number = 0
    cdef bint negative = n > 0 and text[0] == c"-"
    i = 1 if negative else 0
    while i < n:
        number = number * 10 + (text[i] - c"0")
        i += 1
    return -number if negative else number


cdef void push_named(lua_State* L, Reader* reader, const char* name) noexcept nogil:
    """A table with the line as its one field."""
    cdef size_t n
    cdef const char* text = read_line(reader, &n)
    lua.createtable(L, 0, 1)
    lua.pushlstring(L, text, n)
    lua.setfield(L, -2, name)


cdef void push_double(lua_State* L, Reader* reader) noexcept nogil:
    cdef size_t n
    cdef const char* text = read_line(reader, &n)
    lua.createtable(L, 0, 1)
    # It ends with the line: what is behind it is no part of a number.
    lua.pushnumber(L, strtod(text, NULL))
    lua.setfield(L, -2, "double")


cdef void push_array(lua_State* L, Reader* reader) noexcept nogil:
    cdef int64_t i, count = read_count(reader)
    if count < 0:
        push_null(L, reader)
        return
    lua.createtable(L, <int> count, 0)
    for i in range(count):
        push_reply(L, reader)
        lua.rawseti(L, -2, <int> i + 1)


cdef void push_inside(lua_State* L, Reader* reader) noexcept nogil:
    """Nil is no key, and would be no value."""
    push_reply(L, reader)
    if lua.type(L, -1) == NIL:
        lua.settop(L, -2)
        lua.pushboolean(L, 0)


cdef void push_map(lua_State* L, Reader* reader, const char* name, bint is_set) noexcept nogil:
    cdef int64_t i, count = read_count(reader)
    lua.createtable(L, 0, 1)
    lua.createtable(L, 0, <int> count)
    for i in range(count):
        push_inside(L, reader)
        if is_set:
            lua.pushboolean(L, 1)
        else:
            push_inside(L, reader)
        lua.rawset(L, -3)
    lua.setfield(L, -2, name)


cdef void push_verbatim(lua_State* L, Reader* reader, size_t n) noexcept nogil:
    lua.createtable(L, 0, 1)
    lua.createtable(L, 0, 2)
    lua.pushlstring(L, reader.at, 3)
    lua.setfield(L, -2, "format")
    lua.pushlstring(L, reader.at + 4, n - 4)
    lua.setfield(L, -2, "string")
    lua.setfield(L, -2, "verbatim_string")
    reader.at += n + 2


cdef inline void push_null(lua_State* L, Reader* reader) noexcept nogil:
    if reader.resp3:
        lua.pushnil(L)
    else:
        lua.pushboolean(L, 0)


cdef void push_reply(lua_State* L, Reader* reader) noexcept nogil:
    """The reply that the reader stands at, which is whole."""
    cdef char mark = reader.at[0]
    cdef int64_t n
    reader.at += 1
    if mark == c"$":
        n = read_count(reader)
        if n < 0:
            push_null(L, reader)
            return
        lua.pushlstring(L, reader.at, <size_t> n)
        reader.at += n + 2
    elif mark == c":":
        lua.pushnumber(L, <double> read_count(reader))
    elif mark == c"+":
        push_named(L, reader, "ok")
    else:
        push_rarer(L, reader, mark)


cdef void push_rarer(lua_State* L, Reader* reader, char mark) noexcept nogil:
    if not lua.checkstack(L, 8):
        raise_memory(L)
    if mark == c"*":
        push_array(L, reader)
    elif mark == c"-":
        push_named(L, reader, "err")
    elif mark == c"_":
        reader.at += 2
        push_null(L, reader)
    elif mark == c"#":
        lua.pushboolean(L, reader.at[0] == c"t")
        reader.at += 3
    elif mark == c",":
        push_double(L, reader)
    elif mark == c"%":
        push_map(L, reader, "map", False)
    elif mark == c"~":
        push_map(L, reader, "set", True)
    elif mark == c"(":
        push_named(L, reader, "big_number")
    elif mark == c"=":
        push_verbatim(L, reader, <size_t> read_count(reader))
    else:
        lua.pushnil(L)
