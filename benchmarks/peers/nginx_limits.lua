-- Both limits in one Redis script call, as gateways on nginx and Lua do it.
local redis = require("nginx.redis")

local TIMEOUT_MS, IDLE_MS, POOL = 20, 60000, 256
-- Fixed windows; a request refused by one limit is charged to none.
-- KEYS: the counters of all requests and of one user. ARGV: count and window (s) of each.
local SCRIPT = [[
for i = 1, 2 do
  if tonumber(redis.call("GET", KEYS[i]) or 0) >= tonumber(ARGV[2 * i - 1]) then return i end
end
for i = 1, 2 do
  if redis.call("INCR", KEYS[i]) == 1 then redis.call("EXPIRE", KEYS[i], ARGV[2 * i]) end
end
return 0
]]

local function hex(bytes)
  return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

local Limits = {}
Limits.__index = Limits

function Limits:ask(client, user)
  return client:evalsha(self.sha, 2, "{n}all", "{n}u:" .. user,
    self.overall.count, self.overall.seconds, self.user.count, self.user.seconds)
end

-- Ends the request with 429 over a limit, with 503 when Redis doesn't answer.
function Limits:check(user)
  local client = redis:new()
  client:set_timeout(TIMEOUT_MS)
  local ok = client:connect(self.address)
  if not ok then return ngx.exit(503) end
  local refused, problem = self:ask(client, user or "")
  if not refused and problem and problem:find("NOSCRIPT", 1, true) then
    client:script("load", SCRIPT)
    refused = self:ask(client, user or "")
  end
  if not refused then return ngx.exit(503) end
  client:set_keepalive(IDLE_MS, POOL)
  if refused ~= 0 then return ngx.exit(429) end
end

local _M = {}

function _M.new(address, overall, user)
  return setmetatable({
    address = address, overall = overall, user = user,
    sha = hex(ngx.sha1_bin(SCRIPT)),
  }, Limits)
end

return _M
