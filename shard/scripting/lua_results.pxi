# What a script returns, as the bytes of a reply. The bytes lie in the interpreter's own room and not in Lua, whose errors leave
# the functions here without coming back to them.

cdef enum:
    DEEPEST = 1000              # tables in tables, of a reply: each takes of the stack of this process

cdef char* make_room(lua_State* L, Host* host, size_t n) noexcept nogil:
    """Where the next `n` bytes go. Leaves with an error where the result is larger than what the interpreter may use."""
    cdef Bytes* out = &host.out
    cdef size_t room
    cdef char* data
    if out.size + n > out.room:
        if out.size + n > host.limit:
            raise_memory(L)
        room = 2 * (out.size + n)
        data = <char*> realloc(out.data, room)
        if data == NULL:
            raise_memory(L)
        out.data = data
        out.room = room
    out.size += n
    return out.data + out.size - n


cdef inline void put(lua_State* L, Host* host, const char* text, size_t n) noexcept nogil:
    memcpy(make_room(L, host, n), text, n)


cdef inline void put_mark(lua_State* L, Host* host, char mark, int64_t number) noexcept nogil:
    """The first line of what has a length or a count, or of an integer."""
    cdef char[32] line
    cdef int n
    line[0] = mark
    n = 1 + format_int64(line + 1, number)
    line[n] = c"\r"
    line[n + 1] = c"\n"
    put(L, host, line, n + 2)


cdef void put_text(lua_State* L, Host* host, const char* text, size_t n) noexcept nogil:
    put_mark(L, host, c"$", <int64_t> n)
    put(L, host, text, n)
    put(L, host, "\r\n", 2)


cdef void put_line(lua_State* L, Host* host, char mark, const char* text, size_t n) noexcept nogil:
    """A line of its own, whatever is in the text."""
    cdef size_t i
    cdef char* line = make_room(L, host, n + 3)
    line[0] = mark
    for i in range(n):
        line[i + 1] = c" " if text[i] == c"\r" or text[i] == c"\n" else text[i]
    line[n + 1] = c"\r"
    line[n + 2] = c"\n"


cdef int64_t whole(double number) noexcept nogil:
    """As a real server makes an integer of it."""
    if number != number or number >= 9223372036854775808.0 or number < -9223372036854775808.0:
        return INT64_MIN
    return <int64_t> number


cdef void put_double(lua_State* L, Host* host, double number) noexcept nogil:
    cdef char[40] text
    cdef int n
    if number != number:
        n = snprintf(text, sizeof(text), "nan")
    elif number - number != 0:
        n = snprintf(text, sizeof(text), "inf" if number > 0 else "-inf")
    else:
        n = snprintf(text, sizeof(text), "%.17g", number)
    if host.resp >= 3:
        put_line(L, host, c",", text, n)
    else:
        put_text(L, host, text, n)


cdef void put_null_value(lua_State* L, Host* host) noexcept nogil:
    if host.resp >= 3:
        put(L, host, "_\r\n", 3)
    else:
        put(L, host, "$-1\r\n", 5)


cdef bint field(lua_State* L, int at, const char* name, int kind) noexcept nogil:
    """Pushes the table's own field if it is of that kind."""
    lua.pushstring(L, name)
    lua.rawget(L, at)
    if lua.type(L, -1) == kind:
        return True
    lua.settop(L, -2)
    return False


cdef void put_pairs(lua_State* L, Host* host, char mark, bint both, int depth) noexcept nogil:
    """The table on top, as a map or a set; its count is known when its elements are."""
    cdef size_t at = host.out.size, size
    cdef int64_t count = 0
    cdef int top = lua.gettop(L)
    lua.pushnil(L)
    while lua.next(L, top):
        lua.pushvalue(L, top + 1)
        put_value(L, host, depth)
        lua.settop(L, top + 2)
        if both:
            put_value(L, host, depth)
        lua.settop(L, top + 1)
        count += 1
    if host.resp < 3:
        if both:
            count *= 2
        mark = c"*"
    size = host.out.size - at
    put_mark(L, host, mark, count)
    move_front(host, at, size)


cdef void move_front(Host* host, size_t at, size_t size) noexcept nogil:
    """The last bytes go before the `size` bytes that begin at `at`."""
    cdef char[32] line
    cdef size_t n = host.out.size - at - size
    memcpy(line, host.out.data + at + size, n)
    memmove(host.out.data + at + n, host.out.data + at, size)
    memcpy(host.out.data + at, line, n)


cdef void put_array(lua_State* L, Host* host, int depth) noexcept nogil:
    """The table on top, as far as it has no holes."""
    cdef int top = lua.gettop(L), i = 0
    cdef int64_t count = 0
    while True:
        lua.rawgeti(L, top, <int> count + 1)
        if lua.type(L, -1) == NIL:
            break
        lua.settop(L, -2)
        count += 1
    lua.settop(L, top)
    put_mark(L, host, c"*", count)
    for i in range(count):
        lua.rawgeti(L, top, i + 1)
        put_value(L, host, depth)
        lua.settop(L, top)


cdef bint put_verbatim(lua_State* L, Host* host) noexcept nogil:
    """The table on top, if it has what a verbatim string is made of."""
    cdef int top = lua.gettop(L)
    cdef size_t n, length
    cdef const char* text
    cdef const char* form
    cdef char[3] three
    if not field(L, top, "string", STRING) or not field(L, top, "format", STRING):
        lua.settop(L, top)
        return False
    text = lua.tolstring(L, top + 1, &n)
    form = lua.tolstring(L, top + 2, &length)
    if host.resp >= 3:
        memset(three, c" ", 3)
        memcpy(three, form, min(length, <size_t> 3))
        put_mark(L, host, c"=", <int64_t> n + 4)
        put(L, host, three, 3)
        put(L, host, ":", 1)
        put(L, host, text, n)
        put(L, host, "\r\n", 2)
    else:
        put_text(L, host, text, n)
    lua.settop(L, top)
    return True


cdef bint put_special(lua_State* L, Host* host, int depth) noexcept nogil:
    """The table on top, if a field says what it is."""
    cdef int top = lua.gettop(L)
    cdef size_t n
    cdef const char* text
    if field(L, top, "err", STRING):
        text = lua.tolstring(L, -1, &n)
        put_line(L, host, c"-", text, n)
    elif field(L, top, "ok", STRING):
        text = lua.tolstring(L, -1, &n)
        put_line(L, host, c"+", text, n)
    elif field(L, top, "double", NUMBER):
        put_double(L, host, lua.tonumberx(L, -1, NULL))
    elif field(L, top, "map", TABLE):
        put_pairs(L, host, c"%", True, depth + 1)
    elif field(L, top, "set", TABLE):
        put_pairs(L, host, c"~", False, depth + 1)
    elif field(L, top, "big_number", STRING):
        text = lua.tolstring(L, -1, &n)
        if host.resp >= 3:
            put_line(L, host, c"(", text, n)
        else:
            put_text(L, host, text, n)
    elif not (field(L, top, "verbatim_string", TABLE) and put_verbatim(L, host)):
        lua.settop(L, top)
        return False
    lua.settop(L, top)
    return True


cdef void put_value(lua_State* L, Host* host, int depth) noexcept nogil:
    """The value on top, which stays there."""
    cdef int kind = lua.type(L, -1)
    cdef size_t n
    cdef const char* text
    if kind == STRING:
        text = lua.tolstring(L, -1, &n)
        put_text(L, host, text, n)
    elif kind == NUMBER:
        put_mark(L, host, c":", whole(lua.tonumberx(L, -1, NULL)))
    elif kind == TABLE:
        if depth > DEEPEST or not lua.checkstack(L, 8):
            put_line(L, host, c"-", "ERR reached lua stack limit", 27)
        elif not put_special(L, host, depth):
            put_array(L, host, depth + 1)
    elif kind == BOOLEAN:
        put_truth(L, host, lua.toboolean(L, -1))
    else:
        put_null_value(L, host)


cdef void put_truth(lua_State* L, Host* host, bint value) noexcept nogil:
    if host.script_resp >= 3 and host.resp >= 3:
        put(L, host, "#t\r\n" if value else "#f\r\n", 4)
    elif value:
        put(L, host, ":1\r\n", 4)
    elif host.script_resp >= 3:
        put(L, host, ":0\r\n", 4)
    else:
        put_null_value(L, host)


cdef void put_result(lua_State* L, Host* host) noexcept nogil:
    """The value on top as the reply of a script."""
    cdef int kind = lua.type(L, -1)
    host.out.size = 0
    if kind == NIL or (kind == BOOLEAN and not lua.toboolean(L, -1) and host.script_resp < 3):
        host.kind = NOTHING
        put_null_value(L, host)
        return
    host.kind = TEXT if kind == STRING else ENCODED
    put_value(L, host, 0)
