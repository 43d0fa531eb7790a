-- bit: operations on 32-bit integers, as Lua BitOp has them: results are signed, arguments are rounded and taken modulo 2^32.
local T, add, protected, on_struct = ...
local band, bor, bxor, bnot = T.bit32.band, T.bit32.bor, T.bit32.bxor, T.bit32.bnot
local lshift, rshift, arshift, lrotate, rrotate =
    T.bit32.lshift, T.bit32.rshift, T.bit32.arshift, T.bit32.lrotate, T.bit32.rrotate
local tonumber, fault, select, type, format, upper, floor =
    T.tonumber, T.fault, T.select, T.type, T.string.format, T.string.upper, T.math.floor

local WORD, HALF, ROUNDING, EXACT = 4294967296, 2147483648, 6755399441055744, 2251799813685248

local function unsigned(value, place, name)
    local number = tonumber(value)
    if not number then
        fault("bad argument #" .. place .. " to '" .. name .. "' (number expected, got "
              .. (value == nil and "no value" or type(value)) .. ")")
    end
    if number > -EXACT and number < EXACT then
        number = (number + ROUNDING) - ROUNDING
    else
        -- What is left of it in the last bits of a double, as there.
        number = on_struct("bits", "", number + ROUNDING)
    end
    number = number % WORD
    -- Infinite, or none.
    return number == number and floor(number) or 0
end

local function signed(number)
    return number >= HALF and number - WORD or number
end

local function folded(name, operation)
    return function(first, ...)
        local found = unsigned(first, 1, name)
        for i = 1, select("#", ...) do
            found = operation(found, unsigned((select(i, ...)), i + 1, name))
        end
        return signed(found)
    end
end

local function shifted(name, operation)
    return function(value, by)
        return signed(operation(unsigned(value, 1, name), unsigned(by, 2, name) % 32))
    end
end

local bit = {
    tobit = function(value) return signed(unsigned(value, 1, "tobit")) end,
    bnot = function(value) return signed(bnot(unsigned(value, 1, "bnot"))) end,
    band = folded("band", band), bor = folded("bor", bor), bxor = folded("bxor", bxor),
    lshift = shifted("lshift", lshift), rshift = shifted("rshift", rshift), arshift = shifted("arshift", arshift),
    rol = shifted("rol", lrotate), ror = shifted("ror", rrotate),
    bswap = function(value)
        local number = unsigned(value, 1, "bswap")
        return signed(bor(lshift(band(number, 0xFF), 24), lshift(band(number, 0xFF00), 8),
                          band(rshift(number, 8), 0xFF00), rshift(number, 24)))
    end,
    tohex = function(value, digits)
        local number = unsigned(value, 1, "tohex")
        digits = digits == nil and 8 or signed(unsigned(digits, 2, "tohex"))
        local text = format("%08x", number)
        if digits < 0 then
            digits, text = -digits, upper(text)
        end
        return digits >= 8 and text or T.string.sub(text, 9 - digits)
    end,
}
add("bit", protected(bit))
