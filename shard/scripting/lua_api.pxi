# The part of Lua 5.2's interface in C that is used here, found in the module of lupa that carries it.
#
# lupa's own bridge costs more than a short script does: it takes two locks, and makes Python objects of every word and every
# reply. So its Lua is used without it: the library is opened, its functions are found by their names, and no code of lupa runs.

cdef extern from "dlfcn.h" nogil:
    void* dlopen(const char* path, int flags)
    void* dlsym(void* library, const char* name)
    const char* dlerror()
    int RTLD_NOW
    int RTLD_LOCAL

ctypedef void* (*Allocate)(void* host, void* block, size_t old, size_t new) noexcept nogil
ctypedef void (*Hook)(lua_State* L, void* activation) noexcept nogil

cdef enum:
    # Of lua.h and luaconf.h, 5.2; `load_lua` asks for the version.
    LUA_VERSION = 502
    REGISTRY = -1001000
    GLOBALS = 2
    ALL_RESULTS = -1
    BY_COUNT = 8
    OF_MEMORY = 4               # the status of a call that had none
    COLLECT = 2
    SET_PAUSE = 6

    NIL = 0
    BOOLEAN = 1
    NUMBER = 3
    STRING = 4
    TABLE = 5

cdef struct Api:
    lua_State* (*newstate)(Allocate allocate, void* host) noexcept nogil
    void (*close)(lua_State* L) noexcept nogil
    const double* (*version)(lua_State* L) noexcept nogil
    void (*openlibs)(lua_State* L) noexcept nogil
    Allocate (*getallocf)(lua_State* L, void** host) noexcept nogil
    void (*sethook)(lua_State* L, Hook hook, int mask, int count) noexcept nogil
    int (*gc)(lua_State* L, int what, int data) noexcept nogil
    int (*error)(lua_State* L) noexcept nogil
    int (*checkstack)(lua_State* L, int n) noexcept nogil
    int (*gettop)(lua_State* L) noexcept nogil
    void (*settop)(lua_State* L, int top) noexcept nogil
    void (*pushvalue)(lua_State* L, int at) noexcept nogil
    void (*insert)(lua_State* L, int at) noexcept nogil
    int (*type)(lua_State* L, int at) noexcept nogil
    double (*tonumberx)(lua_State* L, int at, int* is_one) noexcept nogil
    const char* (*tolstring)(lua_State* L, int at, size_t* n) noexcept nogil
    int (*toboolean)(lua_State* L, int at) noexcept nogil
    void (*pushnil)(lua_State* L) noexcept nogil
    void (*pushnumber)(lua_State* L, double number) noexcept nogil
    const char* (*pushlstring)(lua_State* L, const char* text, size_t n) noexcept nogil
    const char* (*pushstring)(lua_State* L, const char* text) noexcept nogil
    void (*pushboolean)(lua_State* L, int value) noexcept nogil
    void (*pushcclosure)(lua_State* L, Function function, int upvalues) noexcept nogil
    void (*createtable)(lua_State* L, int elements, int fields) noexcept nogil
    void (*rawget)(lua_State* L, int at) noexcept nogil
    void (*rawgeti)(lua_State* L, int at, int n) noexcept nogil
    void (*rawset)(lua_State* L, int at) noexcept nogil
    void (*rawseti)(lua_State* L, int at, int n) noexcept nogil
    void (*getfield)(lua_State* L, int at, const char* name) noexcept nogil
    void (*setfield)(lua_State* L, int at, const char* name) noexcept nogil
    int (*next)(lua_State* L, int at) noexcept nogil
    void (*callk)(lua_State* L, int n, int results, int context, Function go_on) noexcept nogil
    int (*pcallk)(lua_State* L, int n, int results, int handler, int context, Function go_on) noexcept nogil
    int (*loadbufferx)(lua_State* L, const char* text, size_t n, const char* name, const char* mode) noexcept nogil
    int (*ref)(lua_State* L, int at) noexcept nogil
    void (*unref)(lua_State* L, int at, int ref) noexcept nogil

cdef Api lua
cdef void* library = NULL


cdef int find(void** place, bytes name) except -1:
    place[0] = dlsym(library, name)
    if place[0] == NULL:
        raise ImportError(f"lupa's Lua 5.2 does not show its function {name.decode()}, which scripts need")
    return 0


cdef int load_lua() except -1:
    """Finds the functions; once in a process. ImportError when they are not where lupa's wheels have them."""
    global library
    if library != NULL:
        return 0
    found = importlib.util.find_spec("lupa.lua52")
    if found is None or not found.origin:
        raise ImportError("lupa has no module lua52, whose Lua scripts run in")
    library = dlopen(found.origin.encode(), RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        raise ImportError(f"lupa's Lua 5.2 cannot be loaded: {dlerror().decode('utf-8', 'replace')}")
    try:
        find_functions()
    except ImportError:
        library = NULL
        raise
    return 0


cdef int find_functions() except -1:
    find(<void**> &lua.version, b"lua_version")
    if <int> lua.version(NULL)[0] != LUA_VERSION:
        raise ImportError(f"lupa's module lua52 is Lua {lua.version(NULL)[0] / 100}, and not 5.2")
    find(<void**> &lua.newstate, b"lua_newstate")
    find(<void**> &lua.close, b"lua_close")
    find(<void**> &lua.openlibs, b"luaL_openlibs")
    find(<void**> &lua.getallocf, b"lua_getallocf")
    find(<void**> &lua.sethook, b"lua_sethook")
    find(<void**> &lua.gc, b"lua_gc")
    find(<void**> &lua.error, b"lua_error")
    find(<void**> &lua.checkstack, b"lua_checkstack")
    find(<void**> &lua.gettop, b"lua_gettop")
    find(<void**> &lua.settop, b"lua_settop")
    find(<void**> &lua.pushvalue, b"lua_pushvalue")
    find(<void**> &lua.insert, b"lua_insert")
    find(<void**> &lua.type, b"lua_type")
    find(<void**> &lua.tonumberx, b"lua_tonumberx")
    find(<void**> &lua.tolstring, b"lua_tolstring")
    find(<void**> &lua.toboolean, b"lua_toboolean")
    find(<void**> &lua.pushnil, b"lua_pushnil")
    find(<void**> &lua.pushnumber, b"lua_pushnumber")
    find(<void**> &lua.pushlstring, b"lua_pushlstring")
    find(<void**> &lua.pushstring, b"lua_pushstring")
    find(<void**> &lua.pushboolean, b"lua_pushboolean")
    find(<void**> &lua.pushcclosure, b"lua_pushcclosure")
    find(<void**> &lua.createtable, b"lua_createtable")
    find(<void**> &lua.rawget, b"lua_rawget")
    find(<void**> &lua.rawgeti, b"lua_rawgeti")
    find(<void**> &lua.rawset, b"lua_rawset")
    find(<void**> &lua.rawseti, b"lua_rawseti")
    find(<void**> &lua.getfield, b"lua_getfield")
    find(<void**> &lua.setfield, b"lua_setfield")
    find(<void**> &lua.next, b"lua_next")
    find(<void**> &lua.callk, b"lua_callk")
    find(<void**> &lua.pcallk, b"lua_pcallk")
    find(<void**> &lua.loadbufferx, b"luaL_loadbufferx")
    find(<void**> &lua.ref, b"luaL_ref")
    find(<void**> &lua.unref, b"luaL_unref")
    return 0
