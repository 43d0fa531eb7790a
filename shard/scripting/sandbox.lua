-- What scripts see: Lua 5.2 dressed as the 5.1 of a real server, and nothing else.
--
-- Python runs this once for each interpreter, with its callbacks, and gets the functions at the end. From here on the
-- interpreter's own globals are empty; scripts and libraries have environments of their own, which they cannot change:
--
--   env (a proxy)  ->  names  ->  common: what both have          string, table, redis … are proxies, too
--                      KEYS, ARGV; redis with its calls
--
-- Rules. What is given here is functions, strings and numbers, and no script sees more than those. Functions of Python take and
-- answer strings and numbers alone, and never raise. `debug` is ours alone, since it shows upvalues.

local call, pcall_command, is_stopped, stop, starve, look, on_resp, on_sha1, on_log, on_acl, on_register, on_struct, first_seed,
      version, version_number = ...

local assert, collectgarbage, error, getmetatable, ipairs, load, next, pairs, pcall, rawequal, rawget, rawset, select, setmetatable,
      tonumber, tostring, type, xpcall =
      assert, collectgarbage, error, getmetatable, ipairs, load, next, pairs, pcall, rawequal, rawget, rawset, select, setmetatable,
      tonumber, tostring, type, xpcall
local getinfo, set_any_metatable = debug.getinfo, debug.setmetatable
local any_metatable = debug.getmetatable
local string, table, math, coroutine, bit32, clock = string, table, math, coroutine, bit32, os.clock
local floor, concat, format, sub, find = math.floor, table.concat, string.format, string.sub, string.find
local unpack_list = table.unpack
local null = io.stdin

-- A userdata that nothing can be done with.
set_any_metatable(null, nil)

local globals = _G
for name in pairs(globals) do
    globals[name] = nil
end

local OWN = getinfo(1, "S").source
local READONLY = "Attempt to modify a readonly table"

-- Tables that nobody changes -------------------------------------------------------------------------
local real = setmetatable({}, {__mode = "k"})

local function refuse()
    error(READONLY, 2)
end

local function walker(t)
    local at
    return function()
        local value
        at, value = next(t, at)
        return at, value
    end
end

local function protected(t, index)
    local proxy = {}
    real[proxy] = t
    return setmetatable(proxy, {
        __index = index or t, __newindex = refuse, __metatable = false,
        __len = function() return #t end,
        __pairs = function() return walker(t) end,
    })
end

local function changeable(t)
    if real[t] then
        error(READONLY, 0)
    end
    return t
end

-- Killing --------------------------------------------------------------------------------------------
-- The hook is set for every thread there is, and by `stop` to come behind every instruction.
local MEMORY = "not enough memory"

local function resumed(ok, ...)
    if is_stopped() then
        -- The hook of this thread has not noticed yet.
        stop()
    elseif not ok and (...) == MEMORY then
        -- A script whose memory is used up has ended: each step of one that went on would cost a whole collection.
        starve()
    end
    return ok, ...
end

local function resume(thread, ...)
    return resumed(coroutine.resume(thread, ...))
end

local function passed(ok, ...)
    if not ok then
        error((...), 0)
    end
    return ...
end

-- What 5.1 has and 5.2 has not, or has in another way -------------------------------------------------
local common = {
    _VERSION = "Lua 5.1", assert = assert, error = error, ipairs = ipairs, pairs = pairs, rawequal = rawequal,
    select = select, tostring = tostring, type = type,
}

local function plain(ok, fault, ...)
    if fault == MEMORY and not ok then
        starve()
    end
    if not ok and type(fault) == "table" then
        local text = rawget(fault, "err")
        if type(text) == "string" then
            return false, text
        end
    end
    return ok, fault, ...
end

function common.pcall(...)
    return plain(pcall(...))
end

function common.xpcall(f, handler)
    return resumed(xpcall(f, function(fault)
        -- It is called from inside of the hook where a script is killed, and no hook would end it there.
        if is_stopped() then
            return fault
        end
        return handler(fault)
    end))
end

function common.tonumber(...)
    if select("#", ...) < 2 then
        return tonumber(...)
    end
    local number = tonumber(...)
    return number and number > 18446744073709551616 and 18446744073709551616 or number
end

function common.getmetatable(value)
    local found = getmetatable(value)
    return found or nil
end

function common.setmetatable(t, meta)
    if type(t) == "table" then
        changeable(t)
    end
    if type(meta) == "table" then
        -- 5.1 calls no finalizers of tables, and none may run outside of its script.
        local final = rawget(meta, "__gc")
        if final ~= nil then
            rawset(changeable(meta), "__gc", nil)
            setmetatable(t, meta)
            rawset(meta, "__gc", final)
            return t
        end
    end
    return setmetatable(t, meta)
end

function common.next(t, key)
    return next(real[t] or t, key)
end

function common.rawget(t, key)
    return rawget(real[t] or t, key)
end

function common.rawset(t, key, value)
    return rawset(changeable(t), key, value)
end

function common.unpack(t, first, last)
    first, last = first or 1, last or #t
    if last - first >= 1000000 then
        error("too many results to unpack", 0)
    end
    return unpack_list(t, first, last)
end

function common.collectgarbage(option, ...)
    if option == "count" then
        return (collectgarbage("count"))
    elseif option == nil or option == "collect" then
        return collectgarbage("collect")
    elseif option == "step" then
        return collectgarbage("step", ...)
    end
    return 0
end

function common.gcinfo()
    return floor((collectgarbage("count")))
end

common.coroutine = protected({
    create = coroutine.create, resume = resume, status = coroutine.status, yield = coroutine.yield,
    running = function()
        local thread, main = coroutine.running()
        return not main and thread or nil
    end,
    wrap = function(f)
        local thread = coroutine.create(f)
        return function(...)
            return passed(resume(thread, ...))
        end
    end,
})

-- Strings: their methods are found in the table itself, which scripts see through a proxy.
local shown_string = protected(string)
string.gfind = string.gmatch
string.dump = function()
    error("unable to dump given function", 0)
end
local rep = string.rep
string.rep = function(text, count)
    -- Nothing is repeated for long.
    if text == "" then
        return ""
    end
    return rep(text, count)
end
-- 5.1 prints a negative number as the unsigned one of its bits.
local plain_format = string.format
string.format = function(form, ...)
    if type(form) ~= "string" or not find(form, "%%[-+ #0]*%d*%.?%d*[xXou]") then
        return plain_format(form, ...)
    end
    local values, place = {...}, 0
    local count = select("#", ...)
    form = string.gsub(form, "%%([-+ #0]*%d*%.?%d*)(.)", function(options, letter)
        if letter == "%" then
            return nil
        end
        place = place + 1
        local number = tonumber(values[place])
        if number and number < 0 and find("xXou", letter, 1, true) and #options < 9 then
            values[place] = on_struct("format", "%" .. options .. letter, number)
            return "%s"
        end
    end)
    return plain_format(form, unpack_list(values, 1, count))
end

getmetatable("").__metatable = protected({__index = shown_string})
common.string = shown_string

local function getn(t)
    return #t
end

local shown_table = {
    concat = concat, getn = getn,
    insert = function(t, ...)
        return table.insert(changeable(t), ...)
    end,
    remove = function(t, ...)
        return table.remove(changeable(t), ...)
    end,
    sort = function(t, ...)
        return table.sort(changeable(t), ...)
    end,
    maxn = function(t)
        local most = 0
        for key in pairs(t) do
            if type(key) == "number" and key > most then
                most = key
            end
        end
        return most
    end,
    foreach = function(t, f)
        for key, value in pairs(t) do
            local found = f(key, value)
            if found ~= nil then
                return found
            end
        end
    end,
    foreachi = function(t, f)
        for i = 1, #t do
            local found = f(i, t[i])
            if found ~= nil then
                return found
            end
        end
    end,
    setn = function()
        error("'setn' is obsolete", 0)
    end,
}
common.table = protected(shown_table)

-- Chance: the generator of a real server (drand48, in halves of 24 bits).
local low, high = 0x330E, 0
local HALF = 16777216
local RANDOM_MOST = 2147483647

local function seed(number)
    number = floor(number) % 4294967296
    low, high = (number % 256) * 65536 + 0x330E, floor(number / 256)
end

seed(first_seed)

local function draw()
    local product = low * 0xECE66D + 11
    high = (low * 0x5DE + high * 0xECE66D + floor(product / HALF)) % HALF
    low = product % HALF
    return high * 128 + floor(low / 131072)
end

local shown_math = {}
for name, value in pairs(math) do
    shown_math[name] = value
end
shown_math.mod = math.fmod
shown_math.log10 = math.log10 or function(x) return math.log(x, 10) end
shown_math.pow = math.pow or function(x, y) return x ^ y end
shown_math.random = function(...)
    local n, first, last = select("#", ...), ...
    local part = (draw() % RANDOM_MOST) / RANDOM_MOST
    if n == 0 then
        return part
    elseif n == 1 then
        first = floor(tonumber(first) or error("bad argument #1 to 'random' (number expected)", 2))
        if first < 1 then
            error("bad argument #1 to 'random' (interval is empty)", 2)
        end
        return floor(part * first) + 1
    elseif n == 2 then
        first = floor(tonumber(first) or error("bad argument #1 to 'random' (number expected)", 2))
        last = floor(tonumber(last) or error("bad argument #2 to 'random' (number expected)", 2))
        if first > last then
            error("bad argument #2 to 'random' (interval is empty)", 2)
        end
        return floor(part * (last - first + 1)) + first
    end
    error("wrong number of arguments", 2)
end
shown_math.randomseed = function(number)
    seed(tonumber(number) or error("bad argument #1 to 'randomseed' (number expected)", 2))
end
common.math = protected(shown_math)
common.os = protected({clock = clock})

-- An error of a library, with the place that has called it, if that can be told: `return f()` leaves none.
local function library_fault(text)
    local level = 2
    local info = getinfo(level, "Sl")
    while info and (info.what == "C" or sub(info.source, 1, 6) ~= "@user_") do
        level = level + 1
        info = getinfo(level, "Sl")
    end
    error(info and info.short_src .. ":" .. info.currentline .. ": " .. text or text, 0)
end

-- Errors ---------------------------------------------------------------------------------------------
local function one_line(text)
    return (string.gsub(text, "[\r\n]", " "))
end

local function where()
    local level = 3
    local info = getinfo(level, "Sl")
    while info and (info.what == "C" or info.source == OWN) do
        level = level + 1
        info = getinfo(level, "Sl")
    end
    return info
end

local function fault_of(fault)
    local info = where()
    local text
    if type(fault) == "table" then
        text = rawget(fault, "err")
        if type(text) ~= "string" then
            text = "ERR unknown error"
        end
    else
        text = "ERR " .. tostring(fault)
    end
    return {one_line(text), info and info.source, info and info.currentline}
end

-- redis ----------------------------------------------------------------------------------------------
local SIMPLE = {string = true, number = true}

local function error_text(text)
    text = (string.gsub(text, "[\r\n]+$", ""))
    if sub(text, 1, 1) == "-" then
        text = sub(text, 2)
    end
    if not find(text, " ", 1, true) then
        return "ERR " .. text
    end
    return text
end

local general = {
    LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3,
    REDIS_VERSION = version, REDIS_VERSION_NUM = version_number,
    log = function(...)
        local n, level = select("#", ...), ...
        if n < 2 then
            error({err = "ERR redis.log() requires two arguments or more."}, 0)
        elseif type(level) ~= "number" then
            error({err = "ERR First argument must be a number (log level)."}, 0)
        elseif level < 0 or level > 3 then
            error({err = "ERR Invalid debug level."}, 0)
        end
        local words = {}
        for i = 2, n do
            local word = select(i, ...)
            if SIMPLE[type(word)] then
                words[#words + 1] = tostring(word)
            end
        end
        on_log(level, sub(concat(words, " "), 1, 1024))
    end,
}

local function sha1hex(...)
    if select("#", ...) ~= 1 then
        error({err = "ERR wrong number of arguments"}, 0)
    end
    local text = ...
    if not SIMPLE[type(text)] then
        return on_sha1("")
    end
    return on_sha1(type(text) == "number" and tostring(text) or text)
end

local function error_reply(...)
    local text = ...
    if select("#", ...) ~= 1 or type(text) ~= "string" then
        return {err = "ERR wrong number or type of arguments"}
    end
    return {err = error_text(text)}
end

local function status_reply(...)
    local text = ...
    if select("#", ...) ~= 1 or type(text) ~= "string" then
        return {err = "ERR wrong number or type of arguments"}
    end
    return {ok = text}
end

local function setresp(...)
    local wanted = ...
    if select("#", ...) ~= 1 then
        error({err = "ERR redis.setresp() requires one argument."}, 0)
    elseif wanted ~= 2 and wanted ~= 3 then
        error({err = "ERR RESP version must be 2 or 3."}, 0)
    end
    on_resp(wanted)
end

local function acl_check_cmd(...)
    local n = select("#", ...)
    if n == 0 then
        error({err = "ERR Please specify at least one argument for this redis.acl_check_cmd() call"}, 0)
    end
    local words, lengths = {...}, {}
    for i = 1, n do
        if not SIMPLE[type(words[i])] then
            error({err = "ERR redis.acl_check_cmd() command arguments must be strings or integers"}, 0)
        end
        words[i] = type(words[i]) == "number" and format("%.17g", words[i]) or words[i]
        lengths[i] = #words[i]
    end
    local answer = on_acl(concat(lengths, ","), concat(words))
    if answer == nil then
        error({err = "ERR Invalid command passed to redis.acl_check_cmd()"}, 0)
    end
    return answer
end

local calls = {
    REPL_NONE = 0, REPL_AOF = 1, REPL_SLAVE = 2, REPL_REPLICA = 2, REPL_ALL = 3,
    call = call, pcall = pcall_command,
    sha1hex = sha1hex, error_reply = error_reply, status_reply = status_reply, setresp = setresp, acl_check_cmd = acl_check_cmd,
    set_repl = function(flags)
        if type(flags) ~= "number" or flags < 0 or flags > 3 then
            error({err = "ERR Invalid replication flags. Please use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."}, 0)
        end
    end,
    breakpoint = function() return false end,
    debug = function() end,
}
for name, value in pairs(general) do
    calls[name] = value
end

-- Registering functions, while a library is loaded ------------------------------------------------------
local pending

local function fail(text)
    error({err = sub(text, 1, 4) == "ERR " and text or "ERR " .. text}, 0)
end

-- A number passes for a string, as lua_isstring has it.
local function worded(value)
    if SIMPLE[type(value)] then
        return tostring(value)
    end
end

local function flags_of(given)
    if type(given) ~= "table" then
        fail("flags argument to redis.register_function must be a table representing function flags")
    end
    local found = {}
    for i = 1, #given do
        found[i] = worded(given[i]) or fail("unknown flag given")
    end
    return concat(found, " ")
end

local function registration(...)
    local n, first, second = select("#", ...), ...
    if n < 1 or n > 2 then
        fail("wrong number of arguments to redis.register_function")
    elseif n == 2 then
        first = worded(first) or fail("first argument to redis.register_function must be a string")
        if type(second) ~= "function" then
            fail("second argument to redis.register_function must be a function")
        end
        return first, second, nil, ""
    elseif type(first) ~= "table" then
        fail("calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).")
    end
    local name, callback, description, flags
    for key, value in next, first do
        if key == "function_name" then
            name = worded(value) or fail("function_name argument given to redis.register_function must be a string")
        elseif key == "description" then
            description = worded(value) or fail("description argument given to redis.register_function must be a string")
        elseif key == "callback" then
            callback = type(value) == "function" and value or fail("callback argument given to redis.register_function must be a function")
        elseif key == "flags" then
            flags = flags_of(value)
        else
            fail("unknown argument given to redis.register_function")
        end
    end
    if not name then
        fail("redis.register_function must get a function name argument")
    elseif not callback then
        fail("redis.register_function must get a callback argument")
    end
    return name, callback, description, flags or ""
end

local function register_function(...)
    if not pending then
        fail("ERR redis.register_function can only be called on FUNCTION LOAD command")
    end
    local name, callback, description, flags = registration(...)
    local refused = on_register(name, description or "", description ~= nil, flags)
    if refused then
        fail(refused)
    end
    pending[name] = callback
end

-- Environments ---------------------------------------------------------------------------------------
local function missing(_, name)
    if type(name) == "string" or type(name) == "number" then
        error("Script attempted to access nonexistent global variable '" .. name .. "'", 2)
    end
    error("Script attempted to access nonexistent global variable '" .. type(name) .. "'", 2)
end

local function environment(own)
    local names = {}
    for name, value in pairs(common) do
        names[name] = value
    end
    for name, value in pairs(own) do
        names[name] = value
    end
    setmetatable(names, {__index = missing})
    local env = protected(names)
    names._G = env
    names.loadstring = function(text, name)
        if type(text) ~= "string" then
            error("bad argument #1 to 'loadstring' (string expected, got " .. type(text) .. ")", 2)
        end
        look()
        return load(text, name or text, "t", env)
    end
    names.load = function(piece, name)
        look()
        return load(piece, name or "=(load)", "t", env)
    end
    return env, names
end

local redis = protected(calls)
local script_env, script_names = environment({redis = redis, server = redis})

-- What a library finds while it is loaded: redis alone, and of that only what registers functions. Its functions find what
-- scripts do, also by a redis that it has kept.
local at_loading = {register_function = register_function}
for name, value in pairs(general) do
    at_loading[name] = value
end
local loading = protected(at_loading, function(_, name)
    if pending then
        local found = at_loading[name]
        if found ~= nil then
            return found
        end
        return missing(nil, name)
    end
    return calls[name]
end)
local library_env = environment({redis = redis, server = redis})
local library_metatable, library_names = any_metatable(library_env), real[library_env]
local loading_names = setmetatable({redis = loading, server = loading}, {__index = missing})

local function add(name, value)
    common[name] = value
    rawset(real[script_env], name, value)
    rawset(real[library_env], name, value)
end

-- What Python is given -------------------------------------------------------------------------------
local function compiled(text, name)
    return load(text, name, "t", script_env)
end

local beginnings = {}

local function on_begin(f)
    beginnings[#beginnings + 1] = f
end

local function begin()
    for i = 1, #beginnings do
        beginnings[i]()
    end
end

local function compiled_library(text)
    return load(text, "@user_function", "t", library_env)
end

-- A library registers its functions between these two, the second of which gives them away.
local function begin_library()
    pending = {}
    library_metatable.__index = loading_names
end

local function end_library()
    local found = pending
    pending = nil
    library_metatable.__index = library_names
    return found
end

local function lines_of(f)
    local info = getinfo(f, "S")
    return info.linedefined, info.lastlinedefined
end

return {
    compiled = compiled, compiled_library = compiled_library, begin_library = begin_library, end_library = end_library,
    lines_of = lines_of, names = script_names, begin = begin, fault_of = fault_of,
    -- For the libraries, which find no globals.
    add = add, protected = protected, null = null, on_struct = on_struct, on_begin = on_begin,
    tools = {
        bit32 = bit32, fault = library_fault, math = math, next = next, rawget = rawget, select = select, string = string, table = table,
        tonumber = tonumber, tostring = tostring, type = type, unpack = unpack_list,
    },
}
