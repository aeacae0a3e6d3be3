-- Give the stock of an open hold back. Again, after another end, or for an older round: changes nothing.
-- KEYS  1 epoch, 2 sku (hash), 3 hold (hash), 4 holds (zset), 5 bought (hash), 6 open (hash), 7 origins (hash)
-- ARGV  1 epoch, 2 order id, 3 round, 4 state to leave it in: released or expired, 5 remember for (ms)
-- returns {order id, state it is in now: held confirmed released expired | closed | unknown, freed: 0 or 1}
local id = ARGV[2]
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {id, 'closed', 0} end

local hold = redis.call('HMGET', KEYS[3], 'state', 'round', 'quantity', 'user', 'origin')
if not hold[1] then return {id, 'unknown', 0} end
if hold[1] ~= 'held' or hold[2] ~= ARGV[3] then return {id, hold[1], 0} end

local quantity, user, origin = tonumber(hold[3]), hold[4], hold[5]
redis.call('HINCRBY', KEYS[2], 'free', quantity)
redis.call('HSET', KEYS[3], 'state', ARGV[4])
redis.call('PEXPIRE', KEYS[3], ARGV[5])
redis.call('ZREM', KEYS[4], id)
if redis.call('HINCRBY', KEYS[5], user, -quantity) <= 0 then redis.call('HDEL', KEYS[5], user) end
if redis.call('HINCRBY', KEYS[6], user, -1) <= 0 then redis.call('HDEL', KEYS[6], user) end
if origin and origin ~= '' and redis.call('HINCRBY', KEYS[7], origin, -1) <= 0 then
    redis.call('HDEL', KEYS[7], origin)
end
return {id, ARGV[4], 1}
