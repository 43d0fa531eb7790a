-- struct: numbers and strings as bytes, in the formats of Redis's lua_struct. Floating point is Python's (`on_struct`).
local T, add, protected, on_struct = ...
local fault, tonumber, type, select = T.fault, T.tonumber, T.type, T.select
local byte, char, sub, rep, find, concat, floor, reverse =
    T.string.byte, T.string.char, T.string.sub, T.string.rep, T.string.find, T.table.concat, T.math.floor, T.string.reverse
local unpack_list = T.unpack

local MOST_INTEGER, LONGEST = 32, 2147483647
local SIZES = {b = 1, B = 1, h = 2, H = 2, l = 8, L = 8, T = 8, f = 4, d = 8, x = 1}

-- The format's next item: code, size, alignment padding, where the format goes on.
local function number_at(format, at, otherwise)
    local _, last, digits = find(format, "^(%d+)", at)
    if not digits then
        return otherwise, at
    end
    local number = tonumber(digits)
    if number > LONGEST then
        fault("integral size overflow")
    end
    return number, last + 1
end

local function size_of(format, code, at, name)
    if code == "i" or code == "I" then
        local size, following = number_at(format, at, 4)
        if size > MOST_INTEGER or size < 1 then
            fault("integral size " .. size .. " is larger than limit of " .. MOST_INTEGER)
        end
        return size, following
    elseif code == "c" then
        return number_at(format, at, 1)
    elseif code == "s" then
        return 0, at
    end
    return SIZES[code] or fault("bad argument #1 to '" .. name .. "' (invalid format option '" .. code .. "')"), at
end

local function is_control(code)
    return code == " " or code == "<" or code == ">" or code == "!"
end

local function control(state, format, code, at)
    if code == "<" then
        state.little = true
    elseif code == ">" then
        state.little = false
    elseif code == "!" then
        local align
        align, at = number_at(format, at, 8)
        if align < 1 or align > 64 or T.bit32.band(align, align - 1) ~= 0 then
            fault("alignment is not a power of 2")
        end
        state.align = align
    end
    return at
end

local function padding(state, code, size, offset)
    if size == 0 or code == "c" then
        return 0
    end
    local align = size > state.align and state.align or size
    -- As it is there, for sizes that are no power of 2, too.
    return T.bit32.band(align - T.bit32.band(offset, align - 1), align - 1)
end

local function integer_bytes(number, size, little)
    number = number >= 0 and floor(number) or -floor(-number)
    local negative = number < 0
    local left = negative and -number - 1 or number
    local bytes = {}
    for i = 1, size do
        local low = left % 256
        left = floor(left / 256)
        bytes[i] = char(negative and 255 - low or low)
    end
    local text = concat(bytes)
    return little and text or reverse(text)
end

local function integer_of(text, little, is_signed)
    text = little and reverse(text) or text
    local size = #text
    local negative = is_signed and size > 0 and byte(text, 1) >= 128
    local number = 0
    for i = size > 8 and size - 7 or 1, size do
        local value = byte(text, i)
        number = number * 256 + (negative and 255 - value or value)
    end
    return negative and -number - 1 or number
end

local function needed(value, place, kind)
    if kind == "number" then
        local number = tonumber(value)
        if number then
            return number
        end
    elseif type(value) == "string" then
        return value
    elseif type(value) == "number" then
        return T.tostring(value)
    end
    fault("bad argument #" .. place .. " to 'pack' (" .. kind .. " expected, got "
          .. type(value) .. ")")
end

local function pack(format, ...)
    if type(format) ~= "string" then
        fault("bad argument #1 to 'pack' (string expected, got " .. type(format) .. ")")
    end
    local values, state, out, total, at, place = {...}, {little = true, align = 1}, {}, 0, 1, 0
    local function put(text)
        out[#out + 1] = text
        total = total + #text
    end
    while at <= #format do
        local code = sub(format, at, at)
        at = at + 1
        if is_control(code) then
            at = control(state, format, code, at)
        else
            local size
            size, at = size_of(format, code, at, "pack")
            put(rep("\0", padding(state, code, size, total)))
            if code == "x" then
                put("\0")
            else
                place = place + 1
                if code == "f" or code == "d" then
                    put(on_struct("pack", (state.little and "<" or ">") .. code, needed(values[place], place + 1, "number"))
                        or fault("not enough memory"))
                elseif code == "s" then
                    put(needed(values[place], place + 1, "string"))
                    put("\0")
                elseif code == "c" then
                    local text = needed(values[place], place + 1, "string")
                    size = size == 0 and #text or size
                    if #text < size then
                        fault("bad argument #" .. place + 2 .. " to 'pack' (string too short)")
                    end
                    put(sub(text, 1, size))
                else
                    put(integer_bytes(needed(values[place], place + 1, "number"), size, state.little))
                end
            end
        end
    end
    return concat(out)
end

local function unpack(format, data, start)
    if type(format) ~= "string" or type(data) ~= "string" then
        fault("bad argument #" .. (type(format) ~= "string" and 1 or 2) .. " to 'unpack' (string expected)")
    end
    local offset = (start == nil and 1 or tonumber(start) or fault("bad argument #3 to 'unpack' (number expected)")) - 1
    if offset < 0 or offset ~= floor(offset) then
        fault("bad argument #3 to 'unpack' (offset must be 1 or greater)")
    end
    local state, found, n, at = {little = true, align = 1}, {}, 0, 1
    while at <= #format do
        local code = sub(format, at, at)
        at = at + 1
        if is_control(code) then
            at = control(state, format, code, at)
        else
            local size
            size, at = size_of(format, code, at, "unpack")
            offset = offset + padding(state, code, size, offset)
            if size > #data - offset then
                fault("bad argument #2 to 'unpack' (data string too short)")
            end
            if code == "f" or code == "d" then
                n = n + 1
                found[n] = on_struct("unpack", (state.little and "<" or ">") .. code, sub(data, offset + 1, offset + size))
            elseif code == "s" then
                local last = find(data, "\0", offset + 1, true)
                if not last then
                    fault("unfinished string in data")
                end
                n = n + 1
                found[n] = sub(data, offset + 1, last - 1)
                size = last - offset
            elseif code == "c" then
                if size == 0 then
                    if n == 0 or type(found[n]) ~= "number" then
                        fault("format 'c0' needs a previous size")
                    end
                    size = found[n]
                    n = n - 1
                    if size < 0 or size > #data - offset then
                        fault("bad argument #2 to 'unpack' (data string too short)")
                    end
                end
                n = n + 1
                found[n] = sub(data, offset + 1, offset + size)
            elseif code ~= "x" then
                n = n + 1
                found[n] = integer_of(sub(data, offset + 1, offset + size), state.little,
                                      code == "b" or code == "h" or code == "l" or code == "i")
            end
            offset = offset + size
        end
    end
    found[n + 1] = offset + 1
    return unpack_list(found, 1, n + 1)
end

local function size(format)
    if type(format) ~= "string" then
        fault("bad argument #1 to 'size' (string expected, got " .. type(format) .. ")")
    end
    local state, total, at = {little = true, align = 1}, 0, 1
    while at <= #format do
        local code = sub(format, at, at)
        at = at + 1
        if is_control(code) then
            at = control(state, format, code, at)
        else
            local bytes
            bytes, at = size_of(format, code, at, "size")
            if code == "s" then
                fault("bad argument #1 to 'size' (option 's' has no fixed size)")
            elseif code == "c" and bytes == 0 then
                fault("bad argument #1 to 'size' (option 'c0' has no fixed size)")
            end
            total = total + padding(state, code, bytes, total) + bytes
        end
    end
    return total
end

add("struct", protected({pack = pack, unpack = unpack, size = size}))
