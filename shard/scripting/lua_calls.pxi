# What Lua calls, and what Python does for it: see the promises at the top of lua.pyx.

# Called by Lua ----------------------------------------------------------------------------------------
cdef inline Host* host_of(lua_State* L) noexcept nogil:
    cdef void* host
    lua.getallocf(L, &host)
    return <Host*> host


cdef void* allocate(void* place, void* block, size_t old, size_t new) noexcept nogil:
    cdef Host* host = <Host*> place
    cdef void* found
    if block == NULL:
        # It says then what the block is for.
        old = 0
    if new == 0:
        free(block)
        host.used -= old
        return NULL
    if new > old and host.used + (new - old) > host.most:
        return NULL
    if new > old and new - old >= LARGE_BLOCK:
        note_large(host)
    found = realloc(block, new)
    if found != NULL:
        host.used += new - old
    return found


cdef void note_large(Host* host) noexcept nogil:
    """A value of this size is about to be made: what is done with it may take long, and is looked at from the next step on."""
    if host.L != NULL and not host.stopped and host.most_instructions != FEW_INSTRUCTIONS:
        host.most_instructions = FEW_INSTRUCTIONS
        lua.sethook(host.L, hook, BY_COUNT, 1)


cdef void raise_memory(lua_State* L) noexcept nogil:
    """Leaves as Lua itself does when it gets no memory."""
    lua.pushstring(L, MEMORY_TEXT)
    lua.error(L)


cdef int raise_fault(lua_State* L, const char* text, bint raises) noexcept nogil:
    lua.createtable(L, 0, 1)
    lua.pushstring(L, text)
    lua.setfield(L, -2, "err")
    return lua.error(L) if raises else 1


cdef int halt(lua_State* L) noexcept nogil:
    """The script ends: each instruction raises from here on, so that no pcall goes on."""
    cdef Host* host = host_of(L)
    host.stopped = True
    lua.sethook(L, hook, BY_COUNT, 1)
    lua.pushstring(L, STOPPED_TEXT if host.reason == NULL else host.reason)
    return lua.error(L)


cdef int starve(lua_State* L) noexcept nogil:
    """The same for one whose memory is used up: each step of one that went on would cost a whole collection."""
    host_of(L).reason = MEMORY_TEXT
    return halt(L)


cdef int is_stopped(lua_State* L) noexcept nogil:
    lua.pushboolean(L, host_of(L).stopped)
    return 1


cdef void hook(lua_State* L, void* activation) noexcept nogil:
    cdef Host* host = host_of(L)
    if not host.stopped:
        look(L, host)
    if host.stopped:
        halt(L)


cdef int look_now(lua_State* L) noexcept nogil:
    """What takes long in one instruction asks for itself."""
    cdef Host* host = host_of(L)
    if not host.stopped:
        ask(host, monotonic_ns())
    return halt(L) if host.stopped else 0


cdef void look(lua_State* L, Host* host) noexcept nogil:
    cdef int64_t now = monotonic_ns()
    lua.sethook(L, hook, BY_COUNT, next_count(host.most_instructions, now - host.looked_ns))
    host.looked_ns = now
    ask(host, now)


cdef void ask(Host* host, int64_t now) noexcept nogil:
    if now - host.ticked_ns >= TICK_NS:
        host.ticked_ns = now
        host.asked = True
        host.stopped = (<Held> <void*> tick_held)(host) != 0
        host.looked_ns = monotonic_ns()


cdef int next_count(int most, int64_t took) noexcept nogil:
    """How many instructions later the hook comes again, when the last ones took so long: those that may take long come singly."""
    if took < TICK_NS // 4:
        return most
    return max(<int> (most // (16 * (took // TICK_NS + 1))), 1)


ctypedef int (*Held)(Host* host) noexcept nogil


cdef int perform(lua_State* L, bint raises) noexcept nogil:
    """redis.call and redis.pcall."""
    cdef Host* host = host_of(L)
    cdef int n = lua.gettop(L), i, kind
    cdef double number
    if n == 0:
        return raise_fault(L, "ERR Please specify at least one argument for this redis lib call", raises)
    if n > host.words_room and not more_words(host, n):
        raise_memory(L)
    for i in range(n):
        kind = lua.type(L, i + 1)
        if kind == STRING:
            host.words[i].data = lua.tolstring(L, i + 1, <size_t*> &host.words[i].size)
        elif kind == NUMBER:
            number = lua.tonumberx(L, i + 1, NULL)
            host.words[i].data = host.digits + DIGITS * i
            host.words[i].size = digits_of(host.digits + DIGITS * i, number)
        else:
            return raise_fault(L, "ERR Lua redis lib command arguments must be strings or integers", raises)
    host.count = n
    if (<Held> <void*> perform_held)(host) == STOPPED:
        return halt(L)
    return answered(L, host, raises)


cdef int answered(lua_State* L, Host* host, bint raises) noexcept nogil:
    """Pushes the reply that lies ready, or raises it."""
    cdef Reader reader
    cdef size_t n
    cdef const char* text
    (<Place> <void*> reply_of)(host, &reader)
    if reader.at[0] != c"-":
        push_reply(L, &reader)
        return 1
    reader.at += 1
    text = read_line(&reader, &n)
    lua.createtable(L, 0, 2)
    lua.pushlstring(L, text, n)
    lua.setfield(L, -2, "err")
    lua.pushboolean(L, 1)
    lua.setfield(L, -2, "ignore_error_stats_update")
    return lua.error(L) if raises else 1


ctypedef void (*Place)(Host* host, Reader* reader) noexcept nogil


cdef inline int digits_of(char* out, double number) noexcept nogil:
    """A number as an argument: as a real server writes it, ``%.17g``."""
    if -1e15 < number < 1e15 and number == <double> <int64_t> number and number != 0:
        return format_int64(out, <int64_t> number)
    return snprintf(out, DIGITS, "%.17g", number)


cdef bint more_words(Host* host, int n) noexcept nogil:
    cdef Span* words = <Span*> realloc(host.words, 2 * n * sizeof(Span))
    cdef char* digits
    if words == NULL:
        return False
    host.words = words
    digits = <char*> realloc(host.digits, 2 * n * DIGITS)
    if digits == NULL:
        return False
    host.digits = digits
    host.words_room = 2 * n
    return True


cdef int call(lua_State* L) noexcept nogil:
    return perform(L, True)


cdef int pcall(lua_State* L) noexcept nogil:
    return perform(L, False)


cdef int set_resp(lua_State* L) noexcept nogil:
    cdef Host* host = host_of(L)
    host.script_resp = <int> lua.tonumberx(L, 1, NULL)
    (<Held> <void*> set_resp_held)(host)
    return 0


cdef int callback(lua_State* L) noexcept nogil:
    """A function of Python: strings and numbers there, and back."""
    cdef Host* host = host_of(L)
    cdef int n = lua.gettop(L), i
    if n > host.room:
        return 0
    for i in range(n):
        take(L, i + 1, &host.values[i])
    host.count = n
    host.callback = <int> lua.tonumberx(L, REGISTRY - 1, NULL)
    if (<Held> <void*> callback_held)(host):
        raise_memory(L)
    for i in range(host.count):
        give(L, &host.values[i])
    return host.count


cdef void take(lua_State* L, int at, Value* value) noexcept nogil:
    value.kind = lua.type(L, at)
    if value.kind == STRING:
        value.data = lua.tolstring(L, at, &value.size)
    elif value.kind == NUMBER:
        value.number = lua.tonumberx(L, at, NULL)
    elif value.kind == BOOLEAN:
        value.number = lua.toboolean(L, at)
    elif value.kind != NIL:
        value.kind = TABLE


cdef void give(lua_State* L, Value* value) noexcept nogil:
    if value.kind == STRING:
        lua.pushlstring(L, value.data, value.size)
    elif value.kind == NUMBER:
        lua.pushnumber(L, value.number)
    elif value.kind == BOOLEAN:
        lua.pushboolean(L, value.number != 0)
    elif value.kind == TABLE:
        lua.rawgeti(L, REGISTRY, <int> value.number)
    elif value.kind == CALLBACK:
        give_function(L, <int> value.number)
    else:
        lua.pushnil(L)


cdef void give_function(lua_State* L, int number) noexcept nogil:
    cdef Function[FIRST_CALLBACK] native = [call, pcall, is_stopped, halt, starve, look_now, set_resp]
    if number < FIRST_CALLBACK:
        lua.pushcclosure(L, native[number], 0)
    else:
        lua.pushnumber(L, number - FIRST_CALLBACK)
        lua.pushcclosure(L, callback, 1)


# Called by Python, protected ------------------------------------------------------------------------------
cdef int run_script(lua_State* L) noexcept nogil:
    cdef Host* host = host_of(L)
    lua.rawgeti(L, REGISTRY, host.begin)
    lua.callk(L, 0, 0, 0, NULL)
    if host.passed:
        lua.rawgeti(L, REGISTRY, host.script)
        push_words(L, host.arguments, host.keys)
        push_words(L, host.arguments + host.keys, host.arguments_count - host.keys)
        lua.callk(L, 2, 1, 0, NULL)
    else:
        lua.rawgeti(L, REGISTRY, host.names)
        push_words(L, host.arguments, host.keys)
        lua.setfield(L, -2, "KEYS")
        push_words(L, host.arguments + host.keys, host.arguments_count - host.keys)
        lua.setfield(L, -2, "ARGV")
        lua.rawgeti(L, REGISTRY, host.script)
        lua.callk(L, 0, 1, 0, NULL)
    put_result(L, host)
    return 0


cdef void push_words(lua_State* L, Span* words, int n) noexcept nogil:
    cdef int i
    lua.createtable(L, n, 0)
    for i in range(n):
        lua.pushlstring(L, words[i].data, words[i].size)
        lua.rawseti(L, -2, i + 1)


cdef int call_values(lua_State* L) noexcept nogil:
    """The first value, called with the others; what it answers stays on the stack while Python looks at it."""
    cdef Host* host = host_of(L)
    cdef int i, n = host.count
    if host.values[0].kind == STRING:
        if lua.loadbufferx(L, host.values[0].data, host.values[0].size, host.values[1].data, "t"):
            return lua.error(L)
    else:
        give(L, &host.values[0])
    if not lua.checkstack(L, n + STACK):
        raise_memory(L)
    for i in range(2, n):
        give(L, &host.values[i])
    lua.callk(L, n - 2, ALL_RESULTS, 0, NULL)
    host.count = min(lua.gettop(L), MOST_RESULTS)
    for i in range(host.count):
        take(L, i + 1, &host.values[i])
        if host.values[i].kind == TABLE:
            lua.pushvalue(L, i + 1)
            host.values[i].number = lua.ref(L, REGISTRY)
    return lua.gettop(L)


cdef int get_field(lua_State* L) noexcept nogil:
    cdef Host* host = host_of(L)
    give(L, &host.values[0])
    lua.pushlstring(L, host.values[1].data, host.values[1].size)
    lua.rawget(L, -2)
    host.count = 1
    take(L, -1, &host.values[0])
    if host.values[0].kind == TABLE:
        lua.pushvalue(L, -1)
        host.values[0].number = lua.ref(L, REGISTRY)
    return 1


cdef int open_libraries(lua_State* L) noexcept nogil:
    lua.openlibs(L)
    lua.gc(L, SET_PAUSE, GARBAGE_PERCENT)
    return 0


cdef int collect(lua_State* L) noexcept nogil:
    lua.gc(L, COLLECT, 0)
    return 0


# What Python does for them ---------------------------------------------------------------------------------
cdef int tick_held(Host* host) noexcept:
    cdef Lua self = <Lua> host.lua
    with nogil:
        # Who waits for the GIL gets it here.
        pass
    try:
        return self.runner is not None and bool(self.runner.tick())
    except BaseException:
        log.exception("internal error while a script was looked at")
        return True


cdef int perform_held(Host* host) noexcept:
    cdef Lua self = <Lua> host.lua
    self.reply.clear()
    try:
        if self.program is None:
            put_reply(self.reply, RESP3 if host.script_resp == 3 else RESP2, self.runner.call(words_of(host.words, host.count)))
        else:
            self.program.run(host.words, host.count, self.reply)
        return REPLIED
    except BaseException as error:
        return self.refuse(error)


cdef void reply_of(Host* host, Reader* reader) noexcept:
    cdef Lua self = <Lua> host.lua
    reader.at = self.reply.data + self.reply.start
    reader.end = self.reply.data + self.reply.end
    reader.resp3 = host.script_resp == 3


cdef int set_resp_held(Host* host) noexcept:
    try:
        (<Lua> host.lua).runner.set_resp(host.script_resp)
    except BaseException:
        log.exception("internal error in a choice of a script")
    return 0


cdef int callback_held(Host* host) noexcept:
    """Whether there was no memory for it; what it answers lies in the values."""
    cdef Lua self = <Lua> host.lua
    cdef int i
    try:
        found = self.callbacks[host.callback](*[self.value_of(&host.values[i]) for i in range(host.count)])
        self.keep(found if type(found) is tuple else (found,))
        return False
    except MemoryError:
        return True
    except BaseException:
        log.exception("internal error in a question of a script")
        host.count = 0
        return False


cdef tuple words_of(Span* words, Py_ssize_t n):
    cdef Py_ssize_t i
    return tuple([PyBytes_FromStringAndSize(words[i].data, words[i].size) for i in range(n)])
