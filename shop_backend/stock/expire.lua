-- List open holds that are due, and lease them: no other sweeper sees them before the lease ends.
-- It gives nothing back: SQL has to let go of the cards first, then release.lua is called.
-- KEYS  1 epoch, 2 holds (zset)
-- ARGV  1 epoch, 2 at most so many, 3 lease (ms), 4 prefix of hold keys (same hash slot)
-- returns {'closed'} or {'due', order id, sku, round, order id, sku, round, ...}
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'closed'} end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local answer = {'due'}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, tonumber(ARGV[2]))) do
    local seed = #id == 36 and string.sub(id, 16) or id -- as stock/order_ids.py has it
    local hold = redis.call('HMGET', ARGV[4] .. seed, 'sku', 'round')
    if hold[1] then
        redis.call('ZADD', KEYS[2], now + tonumber(ARGV[3]), id)
        table.insert(answer, id)
        table.insert(answer, hold[1])
        table.insert(answer, hold[2])
    else
        redis.call('ZREM', KEYS[2], id)
    end
end
return answer
