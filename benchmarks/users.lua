-- What many users send through wrk, one after the other.
-- args: kind (header | address | forged | token), the first user's number, a file of tokens for "token"
local turn, lines, make

local kinds = {
  header = function(n) return "X-User: u" .. n end,
  address = function(n) -- each in a /64 of its own
    return string.format("X-Forwarded-For: 2001:db8:%x:%x::1", math.floor(n / 65536), n % 65536)
  end,
  forged = function(n)
    return "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1IiwiZXhwIjo5OTk5OTk5OTk5fQ." .. string.format("%043d", n)
  end,
  token = function() return "Authorization: Bearer " .. (lines() or "none-left") end,
}

function init(args)
  turn, make = tonumber(args[2]) - 1, kinds[args[1]]
  if args[1] == "token" then
    local file = assert(io.open(args[3]))
    lines = function() return file:read("*l") end -- io.lines would close it at its end, and raise after that
    for _ = 1, turn + 1 do lines() end
  end
end

function request()
  turn = turn + 1
  return "GET /seen HTTP/1.1\r\nHost: shop.test\r\n" .. make(turn) .. "\r\n\r\n"
end

dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "result.lua")
