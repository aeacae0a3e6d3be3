-- What wrk sends.
-- args: method, path, body length (bytes), distinct users, 1 for a field that never comes again
local before, after, users, turn, unlike
local count = 0

function init(args)
  local method, path, length = args[1], args[2], tonumber(args[3])
  users = tonumber(args[4])
  unlike = args[5] == "1"
  turn = math.random(users)
  before = method .. " " .. path .. " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\nX-User: u"
  after = "\r\n\r\n"
  if length > 0 then
    after = "\r\nContent-Type: application/json\r\nContent-Length: " .. length .. "\r\n\r\n"
      .. '"' .. string.rep("x", length - 2) .. '"'
  end
end

function request()
  -- A step prime to every user count we use, so that neighbours aren't neighbours in any table.
  turn = (turn + 7919) % users
  if unlike then
    count = count + 1
    return before .. turn .. "\r\nX-Trace: " .. count .. "-" .. turn .. after
  end
  return before .. turn .. after
end

dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "result.lua")
