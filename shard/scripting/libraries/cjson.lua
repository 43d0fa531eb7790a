-- cjson: JSON, with the choices and texts of lua-cjson. What is set by its options holds until the script ends.
local T, add, protected, on_struct, null, on_begin = ...
local fault, type, tonumber, next, select, floor, huge = T.fault, T.type, T.tonumber, T.next, T.select, T.math.floor, T.math.huge
local byte, char, sub, find, gsub, format, concat = T.string.byte, T.string.char, T.string.sub, T.string.find, T.string.gsub,
    T.string.format, T.table.concat

local options

local function defaults()
    options = {sparse_convert = false, sparse_ratio = 2, sparse_safe = 10, encode_depth = 1000, decode_depth = 1000,
               precision = 14, number_format = "%.14g", encode_invalid = false, decode_invalid = true}
end
defaults()
on_begin(defaults)

-- Writing --------------------------------------------------------------------------------------------
local ESCAPES = {['"'] = '\\"', ["\\"] = "\\\\", ["/"] = "\\/", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r",
                 ["\t"] = "\\t", ["\127"] = "\\u007f"}
for code = 0, 31 do
    local letter = char(code)
    ESCAPES[letter] = ESCAPES[letter] or format("\\u%04x", code)
end

local function quoted(text)
    if find(text, '[%c"\\/\127]') then
        text = gsub(text, '[%c"\\/\127]', ESCAPES)
    end
    return '"' .. text .. '"'
end

local function number_text(number)
    if number ~= number or number == huge or number == -huge then
        if not options.encode_invalid then
            fault("Cannot serialise number: must not be NaN or Inf")
        end
        return number ~= number and "nan" or number > 0 and "inf" or "-inf"
    end
    return format(options.number_format, number)
end

-- The length of an array, or nil for an object.
local function array_length(t)
    local most, count = 0, 0
    for key in next, t do
        if type(key) ~= "number" or key < 1 or key ~= floor(key) then
            return nil
        end
        most = key > most and key or most
        count = count + 1
    end
    if options.sparse_ratio > 0 and most > count * options.sparse_ratio and most > options.sparse_safe then
        if not options.sparse_convert then
            fault("Cannot serialise table: excessively sparse array")
        end
        return nil
    end
    return most > 0 and most or nil
end

local write

local function write_object(out, t, depth)
    local first = true
    out[#out + 1] = "{"
    for key, value in next, t do
        local kind = type(key)
        if kind == "number" then
            out[#out + 1] = (first and '"' or ',"') .. number_text(key) .. '":'
        elseif kind == "string" then
            out[#out + 1] = (first and "" or ",") .. quoted(key) .. ":"
        else
            fault("Cannot serialise " .. kind .. ": table key must be a number or string")
        end
        first = false
        write(out, value, depth)
    end
    out[#out + 1] = "}"
end

function write(out, value, depth)
    local kind = type(value)
    if kind == "string" then
        out[#out + 1] = quoted(value)
    elseif kind == "number" then
        out[#out + 1] = number_text(value)
    elseif kind == "boolean" then
        out[#out + 1] = value and "true" or "false"
    elseif kind == "table" then
        depth = depth + 1
        if depth > options.encode_depth then
            fault("Cannot serialise, excessive nesting (" .. depth .. ")")
        end
        local length = array_length(value)
        if not length then
            return write_object(out, value, depth)
        end
        out[#out + 1] = "["
        for i = 1, length do
            if i > 1 then
                out[#out + 1] = ","
            end
            write(out, T.rawget(value, i), depth)
        end
        out[#out + 1] = "]"
    elseif value == nil or value == null then
        out[#out + 1] = "null"
    else
        fault("Cannot serialise " .. kind .. ": type not supported")
    end
end

local function encode(...)
    if select("#", ...) ~= 1 then
        fault("bad argument #1 to 'encode' (expected 1 argument)")
    end
    local out = {}
    write(out, (...), 0)
    return concat(out)
end

-- Reading --------------------------------------------------------------------------------------------
local UNESCAPES = {b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/"}
local NUMBERS = {["-"] = true, i = true, I = true, n = true, N = true}

local function token_at(text, at)
    local first = sub(text, at, at)
    if first == "" then
        return "T_END"
    elseif first == "{" then
        return "T_OBJ_BEGIN"
    elseif first == "}" then
        return "T_OBJ_END"
    elseif first == "[" then
        return "T_ARR_BEGIN"
    elseif first == "]" then
        return "T_ARR_END"
    elseif first == "," then
        return "T_COMMA"
    elseif first == ":" then
        return "T_COLON"
    elseif first == '"' then
        return find(text, '^"[^"\\]*"', at) and "T_STRING" or "unexpected end of string"
    elseif find(text, "^[+-]?%d", at) then
        return "T_NUMBER"
    elseif find(text, "^true", at) or find(text, "^false", at) then
        return "T_BOOLEAN"
    elseif find(text, "^null", at) then
        return "T_NULL"
    end
    return "invalid token"
end

local function wrong(text, at, wanted)
    fault("Expected " .. wanted .. " but found " .. token_at(text, at) .. " at character " .. at)
end

local function utf8(code)
    if code < 0x80 then
        return char(code)
    elseif code < 0x800 then
        return char(0xC0 + floor(code / 64), 0x80 + code % 64)
    elseif code < 0x10000 then
        return char(0xE0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
    end
    return char(0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
end

local function escaped(text, at, start)
    local letter = sub(text, at, at)
    if letter ~= "u" then
        return UNESCAPES[letter] or fault("Expected value but found invalid escape code at character " .. at - 1), at + 1
    end
    local digits = T.string.match(text, "^%x%x%x%x", at + 1)
    local code = digits and tonumber(digits, 16)
    if not code or (code >= 0xDC00 and code < 0xE000) then
        fault("Expected value but found invalid unicode escape code at character " .. at - 1)
    end
    at = at + 5
    if code >= 0xD800 and code < 0xDC00 then
        digits = T.string.match(text, "^\\u(%x%x%x%x)", at)
        local low = digits and tonumber(digits, 16)
        if not low or low < 0xDC00 or low > 0xDFFF then
            fault("Expected value but found invalid unicode escape code at character " .. at - 6)
        end
        code = (code - 0xD800) * 1024 + low - 0xDC00 + 0x10000
        at = at + 6
    end
    return utf8(code), at
end

local function string_at(text, at)
    local start = at
    at = at + 1
    local stop = find(text, '["\\]', at)
    if stop and byte(text, stop) == 34 then
        return sub(text, at, stop - 1), stop + 1
    end
    local parts, n = {}, 0
    while stop do
        n = n + 1
        parts[n] = sub(text, at, stop - 1)
        if byte(text, stop) == 34 then
            return concat(parts), stop + 1
        end
        n = n + 1
        parts[n], at = escaped(text, stop + 1, start)
        stop = find(text, '["\\]', at)
    end
    fault("Expected value but found unexpected end of string at character " .. #text + 1)
end

local function skip(text, at)
    return find(text, "[^ \t\r\n]", at) or #text + 1
end

local read

local function array_at(text, at, depth)
    local found, n = {}, 0
    at = skip(text, at)
    if byte(text, at) == 93 then
        return found, at + 1
    end
    while true do
        n = n + 1
        found[n], at = read(text, at, depth)
        at = skip(text, at)
        local mark = byte(text, at)
        if mark == 93 then
            return found, at + 1
        elseif mark ~= 44 then
            wrong(text, at, "comma or array end")
        end
        at = skip(text, at + 1)
    end
end

local function object_at(text, at, depth)
    local found = {}
    at = skip(text, at)
    if byte(text, at) == 125 then
        return found, at + 1
    end
    while true do
        if byte(text, at) ~= 34 then
            wrong(text, at, "object key string")
        end
        local key, value
        key, at = string_at(text, at)
        at = skip(text, at)
        if byte(text, at) ~= 58 then
            wrong(text, at, "colon")
        end
        value, at = read(text, skip(text, at + 1), depth)
        found[key] = value
        at = skip(text, at)
        local mark = byte(text, at)
        if mark == 125 then
            return found, at + 1
        elseif mark ~= 44 then
            wrong(text, at, "comma or object end")
        end
        at = skip(text, at + 1)
    end
end

local function number_at(text, at)
    local _, last = find(text, "^[+-]?%d+%.?%d*[eE]?[+-]?%d*", at)
    if last then
        local plus = byte(text, at) == 43 and 1 or 0
        at = at + plus
        local word = sub(text, at, last)
        local number = tonumber(word)
        while not number and #word > 1 do
            word = sub(word, 1, -2)
            number = tonumber(word)
        end
        if number and (options.decode_invalid or not find(word, "^-?0%d")) then
            local hex = options.decode_invalid and T.string.match(text, "^-?0[xX]%x+", at)
            if hex then
                return tonumber(hex), at + #hex
            end
            return number, at + #word
        end
    end
    if options.decode_invalid then
        local word = T.string.lower(sub(text, at, at + 8))
        local sign, rest = 1, word
        if sub(word, 1, 1) == "-" then
            sign, rest = -1, sub(word, 2)
        end
        if find(rest, "^infinity") then
            return sign * huge, at + (sign < 0 and 9 or 8)
        elseif find(rest, "^inf") then
            return sign * huge, at + (sign < 0 and 4 or 3)
        elseif find(rest, "^nan") then
            return -(0 / 0), at + (sign < 0 and 4 or 3)
        end
    end
    wrong(text, at, "value")
end

function read(text, at, depth)
    local first = byte(text, at)
    if first == 34 then
        return string_at(text, at)
    elseif first == 123 or first == 91 then
        depth = depth + 1
        if depth > options.decode_depth then
            fault("Found too many nested data structures (" .. depth .. ") at character " .. at)
        end
        if first == 123 then
            return object_at(text, at + 1, depth)
        end
        return array_at(text, at + 1, depth)
    elseif first == 116 and sub(text, at, at + 3) == "true" then
        return true, at + 4
    elseif first == 102 and sub(text, at, at + 4) == "false" then
        return false, at + 5
    elseif first == 110 and sub(text, at, at + 3) == "null" then
        return null, at + 4
    elseif first and (first >= 48 and first <= 57 or first == 43 or NUMBERS[char(first)]) then
        return number_at(text, at)
    end
    wrong(text, at, "value")
end

local function decode(...)
    local text = ...
    if select("#", ...) ~= 1 or (type(text) ~= "string" and type(text) ~= "number") then
        fault("bad argument #1 to 'decode' (string expected, got " .. (text == nil and "no value" or type(text)) .. ")")
    end
    text = T.tostring(text)
    if byte(text, 1) == 0 or byte(text, 2) == 0 then
        fault("JSON parser does not support UTF-16 or UTF-32")
    end
    local value, at = read(text, skip(text, 1), 0)
    at = skip(text, at)
    if at <= #text then
        wrong(text, at, "the end")
    end
    return value
end

-- Options --------------------------------------------------------------------------------------------
local function within(value, low, high, name)
    local number = tonumber(value)
    if not number or number < low or number > high then
        fault("bad argument #1 to '" .. name .. "' (expected integer between " .. low .. " and " .. format("%.0f", high) .. ")")
    end
    return floor(number)
end

local function depth_option(field, name)
    return function(value)
        if value ~= nil then
            options[field] = within(value, 1, 2147483647, name)
        end
        return options[field]
    end
end

local function choice(field)
    return function(value)
        if value ~= nil then
            options[field] = value == true or value == "on" or value == "null"
        end
        return options[field]
    end
end

local shown = {
    _NAME = "cjson", _VERSION = "2.1.0", null = null, encode = encode, decode = decode,
    encode_max_depth = depth_option("encode_depth", "encode_max_depth"),
    decode_max_depth = depth_option("decode_depth", "decode_max_depth"),
    encode_invalid_numbers = choice("encode_invalid"), decode_invalid_numbers = choice("decode_invalid"),
    encode_keep_buffer = function(value) return value ~= false and value ~= "off" end,
    encode_number_precision = function(value)
        if value ~= nil then
            options.precision = within(value, 1, 14, "encode_number_precision")
            options.number_format = "%." .. options.precision .. "g"
        end
        return options.precision
    end,
    encode_sparse_array = function(convert, ratio, safe)
        if convert ~= nil then
            options.sparse_convert = convert == true or convert == "on"
        end
        if ratio ~= nil then
            options.sparse_ratio = within(ratio, 0, 2147483647, "encode_sparse_array")
        end
        if safe ~= nil then
            options.sparse_safe = within(safe, 0, 2147483647, "encode_sparse_array")
        end
        return options.sparse_convert, options.sparse_ratio, options.sparse_safe
    end,
}
local proxy = protected(shown)
shown.new = function() return proxy end
add("cjson", proxy)
