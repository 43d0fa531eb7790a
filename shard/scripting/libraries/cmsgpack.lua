-- cmsgpack: MessagePack, with the choices of Redis's lua_cmsgpack. Floating point is Python's (`on_struct`).
local T, add, protected, on_struct = ...
local fault, type, tonumber, next, select, floor = T.fault, T.type, T.tonumber, T.next, T.select, T.math.floor
local byte, char, sub, concat, unpack_list = T.string.byte, T.string.char, T.string.sub, T.table.concat, T.unpack

local DEEPEST = 16

local function big(number, size)
    local bytes = {}
    for i = size, 1, -1 do
        bytes[i] = char(number % 256)
        number = floor(number / 256)
    end
    return concat(bytes)
end

-- The bytes of a negative number: the complement of what is one less.
local function negative(number, size)
    local left, bytes = -number - 1, {}
    for i = size, 1, -1 do
        bytes[i] = char(255 - left % 256)
        left = floor(left / 256)
    end
    return concat(bytes)
end

local function integer(number)
    if number >= 0 then
        if number <= 127 then
            return char(number)
        elseif number <= 0xFF then
            return char(0xCC, number)
        elseif number <= 0xFFFF then
            return "\205" .. big(number, 2)
        elseif number <= 0xFFFFFFFF then
            return "\206" .. big(number, 4)
        end
        return "\207" .. big(number, 8)
    elseif number >= -32 then
        return char(256 + number)
    elseif number >= -128 then
        return "\208" .. negative(number, 1)
    elseif number >= -32768 then
        return "\209" .. negative(number, 2)
    elseif number >= -2147483648 then
        return "\210" .. negative(number, 4)
    end
    return "\211" .. negative(number, 8)
end

local function head(count, few, mark, two, four)
    if count <= few then
        return char(mark + count)
    elseif count <= 0xFFFF then
        return char(two) .. big(count, 2)
    end
    return char(four) .. big(count, 4)
end

local function text_head(size)
    if size <= 31 then
        return char(0xA0 + size)
    elseif size <= 0xFF then
        return char(0xD9, size)
    end
    return head(size, -1, 0, 0xDA, 0xDB)
end

local function length_of_array(t)
    local most, count = 0, 0
    for key in next, t do
        if type(key) ~= "number" or key <= 0 or key ~= floor(key) then
            return nil
        end
        count = count + 1
        most = key > most and key or most
    end
    return most == count and count or nil
end

local function put(out, value, depth)
    local kind = type(value)
    if kind == "string" then
        out[#out + 1] = text_head(#value)
        out[#out + 1] = value
    elseif kind == "number" then
        if value == floor(value) and value >= -9223372036854775808 and value < 9223372036854775808 then
            out[#out + 1] = integer(value)
        else
            out[#out + 1] = on_struct("shortest", "", value) or fault("not enough memory")
        end
    elseif kind == "boolean" then
        out[#out + 1] = value and "\195" or "\194"
    elseif kind == "table" and depth < DEEPEST then
        local length = length_of_array(value)
        if length then
            out[#out + 1] = head(length, 15, 0x90, 0xDC, 0xDD)
            for i = 1, length do
                put(out, value[i], depth + 1)
            end
        else
            local count = 0
            for _ in next, value do
                count = count + 1
            end
            out[#out + 1] = head(count, 15, 0x80, 0xDE, 0xDF)
            for key, each in next, value do
                put(out, key, depth + 1)
                put(out, each, depth + 1)
            end
        end
    else
        out[#out + 1] = "\192"
    end
end

local function pack(...)
    local n = select("#", ...)
    if n == 0 then
        fault("bad argument #0 to 'pack' (MessagePack pack needs input.)")
    end
    local out = {}
    for i = 1, n do
        put(out, (select(i, ...)), 0)
    end
    return concat(out)
end

local function number_at(data, at, size)
    if at + size - 1 > #data then
        fault("Missing bytes in input.")
    end
    local number = 0
    for i = at, at + size - 1 do
        number = number * 256 + byte(data, i)
    end
    return number, at + size
end

local function signed_at(data, at, size)
    if at + size - 1 > #data then
        fault("Missing bytes in input.")
    end
    if byte(data, at) < 128 then
        return number_at(data, at, size)
    end
    local left = 0
    for i = at, at + size - 1 do
        left = left * 256 + 255 - byte(data, i)
    end
    return -left - 1, at + size
end

local function text_at(data, at, size)
    if at + size - 1 > #data then
        fault("Missing bytes in input.")
    end
    return sub(data, at, at + size - 1), at + size
end

local take

local function array_at(data, at, count, depth)
    local found = {}
    for i = 1, count do
        found[i], at = take(data, at, depth + 1)
    end
    return found, at
end

local function map_at(data, at, count, depth)
    local found = {}
    for _ = 1, count do
        local key, value
        key, at = take(data, at, depth + 1)
        value, at = take(data, at, depth + 1)
        if key == nil or key ~= key then
            fault("Bad data format in input.")
        end
        found[key] = value
    end
    return found, at
end

local function sized(reader, size)
    return function(data, at, depth)
        local count
        count, at = number_at(data, at, size)
        return reader(data, at, count, depth)
    end
end

local READERS = {
    [0xC0] = function(_, at) return nil, at end,
    [0xC2] = function(_, at) return false, at end,
    [0xC3] = function(_, at) return true, at end,
    [0xC4] = sized(text_at, 1), [0xC5] = sized(text_at, 2), [0xC6] = sized(text_at, 4),
    [0xCA] = function(data, at)
        local text
        text, at = text_at(data, at, 4)
        return on_struct("unpack", ">f", text), at
    end,
    [0xCB] = function(data, at)
        local text
        text, at = text_at(data, at, 8)
        return on_struct("unpack", ">d", text), at
    end,
    [0xCC] = function(data, at) return number_at(data, at, 1) end,
    [0xCD] = function(data, at) return number_at(data, at, 2) end,
    [0xCE] = function(data, at) return number_at(data, at, 4) end,
    [0xCF] = function(data, at) return number_at(data, at, 8) end,
    [0xD0] = function(data, at) return signed_at(data, at, 1) end,
    [0xD1] = function(data, at) return signed_at(data, at, 2) end,
    [0xD2] = function(data, at) return signed_at(data, at, 4) end,
    [0xD3] = function(data, at) return signed_at(data, at, 8) end,
    [0xD9] = sized(text_at, 1), [0xDA] = sized(text_at, 2), [0xDB] = sized(text_at, 4),
    [0xDC] = sized(array_at, 2), [0xDD] = sized(array_at, 4), [0xDE] = sized(map_at, 2), [0xDF] = sized(map_at, 4),
}

function take(data, at, depth)
    local code = byte(data, at)
    if not code then
        fault("Missing bytes in input.")
    end
    at = at + 1
    if code < 0x80 then
        return code, at
    elseif code >= 0xE0 then
        return code - 256, at
    elseif code < 0x90 then
        return map_at(data, at, code - 0x80, depth)
    elseif code < 0xA0 then
        return array_at(data, at, code - 0x90, depth)
    elseif code < 0xC0 then
        return text_at(data, at, code - 0xA0)
    end
    local reader = READERS[code]
    if not reader then
        fault("Bad data format in input.")
    end
    return reader(data, at, depth)
end

local function unpack_full(data, limit, offset)
    if type(data) ~= "string" then
        fault("bad argument #1 to 'unpack' (string expected, got " .. type(data) .. ")")
    end
    if offset < 0 or limit < 0 or offset ~= floor(offset) then
        fault("Invalid request to unpack with offset of " .. T.string.format("%.0f", offset)
              .. " and limit of " .. T.string.format("%.0f", #data) .. ".")
    elseif offset > #data then
        fault("Start offset " .. T.string.format("%.0f", offset) .. " greater than input length "
              .. T.string.format("%.0f", #data) .. ".")
    end
    local found, n, at = {}, 0, offset + 1
    while at <= #data and (limit == 0 or n < limit) do
        n = n + 1
        found[n], at = take(data, at, 0)
    end
    return found, n, at > #data and -1 or at - 1
end

local function integer_argument(value, otherwise)
    return floor(value == nil and otherwise or tonumber(value) or fault("number expected"))
end

local shown = {
    _NAME = "cmsgpack", _VERSION = "lua-cmsgpack 0.4.0", _COPYRIGHT = "", _DESCRIPTION = "MessagePack",
    pack = pack,
    unpack = function(data)
        local found, n = unpack_full(data, 0, 0)
        return unpack_list(found, 1, n)
    end,
    unpack_one = function(data, offset)
        local found, n, following = unpack_full(data, 1, integer_argument(offset, 0))
        return following, unpack_list(found, 1, n)
    end,
    unpack_limit = function(data, limit, offset)
        local found, n, following = unpack_full(data, integer_argument(limit), integer_argument(offset, 0))
        return following, unpack_list(found, 1, n)
    end,
}
add("cmsgpack", protected(shown))
