-- What scripts see: Lua 5.2 dressed as the 5.1 of a real server, and nothing else.
--
-- Python runs this once for each interpreter, with its callbacks, and gets the functions at the end. From here on the
-- interpreter's own globals are empty; scripts and libraries have environments of their own, which they cannot change:
--
--   env (a proxy)  ->  names  ->  common: what both have          string, table, redis … are proxies, too
--                      KEYS, ARGV; redis with its calls
--
-- Rules. A Python object is never visible to a script: callbacks are upvalues of the closures here. Callbacks take strings and
-- numbers alone, since anything else would have Python allocate inside the interpreter, and they never raise: the first thing
-- they return says how to go on. `debug` is ours alone, since it shows upvalues.

local on_call, on_call_many, on_tick, on_sha1, on_log, on_resp, on_acl, on_register, on_struct, first_seed, version, version_number = ...

local assert, collectgarbage, error, getmetatable, ipairs, load, next, pairs, pcall, rawequal, rawget, rawset, select, setmetatable,
      tonumber, tostring, type, xpcall =
      assert, collectgarbage, error, getmetatable, ipairs, load, next, pairs, pcall, rawequal, rawget, rawset, select, setmetatable,
      tonumber, tostring, type, xpcall
local sethook, getinfo, set_any_metatable, getlocal = debug.sethook, debug.getinfo, debug.setmetatable, debug.getlocal
local any_metatable = debug.getmetatable
local string, table, math, coroutine, bit32, clock = string, table, math, coroutine, bit32, os.clock
local floor, ceil, concat, format, sub, byte, char, find, huge =
      math.floor, math.ceil, table.concat, string.format, string.sub, string.byte, string.char, string.find, math.huge
local unpack_list = table.unpack
local null = io.stdin

-- A userdata that nothing can be done with.
set_any_metatable(null, nil)

local globals = _G
for name in pairs(globals) do
    globals[name] = nil
end

local OWN = getinfo(1, "S").source
local HOOK_EVERY = 100000
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
local MEMORY = "not enough memory"
local stopped, reason = false, nil

local function hook()
    if on_tick(stopped) then
        -- Behind every instruction from here on, so that no pcall goes on.
        stopped = true
        sethook(hook, "", 1)
        error(reason or "Script killed", 0)
    end
end

local function watch()
    sethook(hook, "", HOOK_EVERY)
end

local function stop()
    stopped = true
    sethook(hook, "", 1)
    error(reason or "Script stopped", 0)
end

-- A script whose memory is used up has ended: each step of one that went on would cost a whole collection.
local function starve()
    reason = MEMORY
    stop()
end

local function create(f)
    local thread = coroutine.create(f)
    sethook(thread, hook, "", HOOK_EVERY)
    return thread
end

local function resumed(ok, ...)
    if stopped then
        -- The hook of this thread has not noticed yet.
        stop()
    elseif not ok and (...) == MEMORY then
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
        if stopped then
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
    create = create, resume = resume, status = coroutine.status, yield = coroutine.yield,
    running = function()
        local thread, main = coroutine.running()
        return not main and thread or nil
    end,
    wrap = function(f)
        local thread = create(f)
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

-- Replies as scripts make them -----------------------------------------------------------------------
local function one_line(text)
    return (string.gsub(text, "[\r\n]", " "))
end

local function whole(number)
    number = number >= 0 and floor(number) or ceil(number)
    if number ~= number or number >= 9223372036854775808 or number < -9223372036854775808 then
        return "-9223372036854775808"
    elseif number == 0 then
        return "0"
    end
    return format("%.0f", number)
end

local function double_text(number)
    if number == huge then
        return "inf"
    elseif number == -huge then
        return "-inf"
    elseif number ~= number then
        return "nan"
    end
    return format("%.17g", number)
end

local out, used, resp, script_resp

local function put(a, b, c)
    used = used + 1
    out[used] = a
    if b then
        used = used + 1
        out[used] = b
    end
    if c then
        used = used + 1
        out[used] = c
    end
end

local function put_bulk(text)
    put("$" .. #text .. "\r\n", text, "\r\n")
end

local put_value

local function put_pairs(mark, t, both)
    local at = used + 1
    local count = 0
    put("")
    for key, value in next, t do
        put_value(key)
        if both then
            put_value(value)
        end
        count = count + 1
    end
    if mark == "%" and resp < 3 then
        mark, count = "*", 2 * count
    elseif resp < 3 then
        mark = "*"
    end
    out[at] = mark .. count .. "\r\n"
end

local function put_table(t)
    local value = rawget(t, "err")
    if type(value) == "string" then
        return put("-" .. one_line(value) .. "\r\n")
    end
    value = rawget(t, "ok")
    if type(value) == "string" then
        return put("+" .. one_line(value) .. "\r\n")
    end
    value = rawget(t, "double")
    if type(value) == "number" then
        if resp >= 3 then
            return put("," .. double_text(value) .. "\r\n")
        end
        return put_bulk(double_text(value))
    end
    value = rawget(t, "map")
    if type(value) == "table" then
        return put_pairs("%", value, true)
    end
    value = rawget(t, "set")
    if type(value) == "table" then
        return put_pairs("~", value, false)
    end
    value = rawget(t, "big_number")
    if type(value) == "string" then
        if resp >= 3 then
            return put("(" .. one_line(value) .. "\r\n")
        end
        return put_bulk(value)
    end
    value = rawget(t, "verbatim_string")
    if type(value) == "table" then
        local text, kind = rawget(value, "string"), rawget(value, "format")
        if type(text) == "string" and type(kind) == "string" then
            if resp >= 3 then
                return put("=" .. #text + 4 .. "\r\n" .. sub(kind .. "   ", 1, 3) .. ":", text, "\r\n")
            end
            return put_bulk(text)
        end
    end
    local at = used + 1
    local count = 0
    put("")
    value = rawget(t, 1)
    while value ~= nil do
        put_value(value)
        count = count + 1
        value = rawget(t, count + 1)
    end
    out[at] = "*" .. count .. "\r\n"
end

function put_value(value)
    local kind = type(value)
    if kind == "string" then
        put_bulk(value)
    elseif kind == "number" then
        put(":" .. whole(value) .. "\r\n")
    elseif kind == "table" then
        put_table(value)
    elseif kind == "boolean" and script_resp >= 3 and resp >= 3 then
        put(value and "#t\r\n" or "#f\r\n")
    elseif value == true or (value == false and script_resp >= 3) then
        put(value and ":1\r\n" or ":0\r\n")
    else
        put(resp >= 3 and "_\r\n" or "$-1\r\n")
    end
end

-- Running --------------------------------------------------------------------------------------------
-- Kinds of results, as Python is told them.
local NOTHING, TEXT, ENCODED, FAILED = 0, 1, 2, 3

local function result_of(value)
    local kind = type(value)
    if kind == "string" then
        return TEXT, value
    elseif value == nil or (value == false and script_resp < 3) then
        return NOTHING
    end
    out, used = {}, 0
    put_value(value)
    local text = concat(out, "", 1, used)
    out = nil
    return ENCODED, text
end

local function inner(f, ...)
    return result_of((f(...)))
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

local function finish(ok, kind, value)
    if ok then
        return kind, value
    elseif reason then
        return FAILED, "ERR " .. reason
    elseif type(kind) == "table" then
        return FAILED, kind[1], kind[2], kind[3]
    end
    return FAILED, "ERR " .. tostring(kind)
end

local function halves(count, ...)
    if count == 0 then
        return {}, {...}
    elseif count == 1 then
        return {(...)}, {select(2, ...)}
    end
    local all, keys, rest = {...}, {}, {}
    for i = 1, count do
        keys[i] = all[i]
    end
    for i = count + 1, select("#", ...) do
        rest[i - count] = all[i]
    end
    return keys, rest
end

local function lists(count, all)
    local keys, rest = {}, {}
    for i = 1, count do
        keys[i] = all[i]
    end
    for i = count + 1, #all do
        rest[i - count] = all[i]
    end
    return keys, rest
end

-- redis ----------------------------------------------------------------------------------------------
local SIMPLE = {string = true, number = true}
local FEW = 24

local function reply_of(state, value, raises)
    if state == 0 then
        return value
    elseif state == 1 then
        return {ok = value}
    elseif state == 2 then
        local fault = {err = value, ignore_error_stats_update = true}
        if raises then
            error(fault, 0)
        end
        return fault
    elseif state == 4 then
        stop()
    end
    error(MEMORY, 0)
end

local function fault(text, raises)
    local found = {err = "ERR " .. text}
    if raises then
        error(found, 0)
    end
    return found
end

local function perform(raises, ...)
    local n = select("#", ...)
    if n == 0 then
        return fault("Please specify at least one argument for this redis lib call", raises)
    end
    if n <= 4 then
        local a, b, c, d = ...
        if SIMPLE[type(a)] and (n < 2 or SIMPLE[type(b)]) and (n < 3 or SIMPLE[type(c)]) and (n < 4 or SIMPLE[type(d)]) then
            local state, value = on_call(...)
            if state == 0 then
                return value
            end
            return reply_of(state, value, raises)
        end
        return fault("Lua redis lib command arguments must be strings or integers", raises)
    end
    local words, lengths = {...}, {}
    for i = 1, n do
        local word = words[i]
        local kind = type(word)
        if kind == "number" then
            word = format("%.17g", word)
            words[i] = word
        elseif kind ~= "string" then
            return fault("Lua redis lib command arguments must be strings or integers", raises)
        end
        if n > FEW then
            lengths[i] = #word
        end
    end
    if n <= FEW then
        local state, value = on_call(...)
        return reply_of(state, value, raises)
    end
    -- Many words are handed over as one.
    local state, value = on_call_many(concat(lengths, ","), concat(words))
    return reply_of(state, value, raises)
end

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
    script_resp = wanted
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
    call = function(...) return perform(true, ...) end,
    pcall = function(...) return perform(false, ...) end,
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
local libraries = {}

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
        return load(text, name or text, "t", env)
    end
    names.load = function(piece, name)
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
local scripts = {}

local function remember(sha, text, name)
    local f, fault = load(text, name, "t", script_env)
    if not f then
        return fault
    end
    scripts[sha] = f
end

local function forget(sha)
    if sha then
        scripts[sha] = nil
    else
        scripts = {}
    end
end

local beginnings = {}

local function on_begin(f)
    beginnings[#beginnings + 1] = f
end

local function begin(wanted)
    for i = 1, #beginnings do
        beginnings[i]()
    end
    resp, script_resp, stopped, reason = wanted, 2, false, nil
end

local function run(sha, wanted, count, ...)
    begin(wanted)
    script_names.KEYS, script_names.ARGV = halves(count, ...)
    return finish(xpcall(inner, fault_of, scripts[sha]))
end

local function run_listed(sha, wanted, count, all)
    begin(wanted)
    script_names.KEYS, script_names.ARGV = lists(count, all)
    return finish(xpcall(inner, fault_of, scripts[sha]))
end

local function call_function(library, name, wanted, count, ...)
    begin(wanted)
    return finish(xpcall(inner, fault_of, libraries[library][name], halves(count, ...)))
end

local function call_function_listed(library, name, wanted, count, all)
    begin(wanted)
    return finish(xpcall(inner, fault_of, libraries[library][name], lists(count, all)))
end

local function lines_of(library, name)
    local info = getinfo(libraries[library][name], "S")
    return info.linedefined, info.lastlinedefined
end

-- Behind a library, also one that was killed, which load_library does not survive.
local function end_loading()
    pending = nil
    library_metatable.__index = library_names
end

local function load_library(name, text)
    local f, fault = load(text, "@user_function", "t", library_env)
    if not f then
        return FAILED, "ERR Error compiling function: " .. fault
    end
    begin(2)
    pending = {}
    library_metatable.__index = loading_names
    local kind, text, source, line = finish(xpcall(inner, fault_of, f))
    local found = pending
    end_loading()
    if kind == FAILED then
        return kind, text, source, line
    end
    libraries[name] = found
    return NOTHING
end

local function rename_library(old, new)
    libraries[new] = libraries[old]
    libraries[old] = nil
end

local function drop_library(name)
    libraries[name] = nil
end

watch()

return {
    run = run, run_listed = run_listed, remember = remember, forget = forget, watch = watch, call_function = call_function,
    call_function_listed = call_function_listed, load_library = load_library, rename_library = rename_library,
    drop_library = drop_library, lines_of = lines_of, end_loading = end_loading,
    -- For the libraries, which find no globals.
    add = add, protected = protected, null = null, on_struct = on_struct, on_begin = on_begin,
    tools = {
        bit32 = bit32, fault = library_fault, math = math, next = next, rawget = rawget, select = select, string = string, table = table,
        tonumber = tonumber, tostring = tostring, type = type, unpack = unpack_list,
    },
}
