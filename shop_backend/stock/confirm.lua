-- Make an open hold final: its stock is sold. Again, or after another end: changes nothing.
-- KEYS  1 epoch, 2 hold (hash), 3 holds (zset), 4 open (hash)
-- ARGV  1 epoch, 2 order id, 3 remember for (ms)
-- returns {order id, state it is in now: confirmed released expired | closed | unknown}
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {ARGV[2], 'closed'} end

local hold = redis.call('HMGET', KEYS[2], 'state', 'user')
if not hold[1] then return {ARGV[2], 'unknown'} end
if hold[1] ~= 'held' then return {ARGV[2], hold[1]} end

redis.call('HSET', KEYS[2], 'state', 'confirmed')
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[2])
if redis.call('HINCRBY', KEYS[4], hold[2], -1) <= 0 then redis.call('HDEL', KEYS[4], hold[2]) end
return {ARGV[2], 'confirmed'}
