-- Say that a worker lives, and count those that do, over all hosts.
-- KEYS[1]  sorted set of workers, each until when it is taken for alive (ms); in the slot of the counters
-- KEYS[2]  the same, of those that admit nothing without this Redis
-- ARGV[1]  a number of the caller's, returned first: proof that this reply is this call's
-- ARGV[2]  the worker
-- ARGV[3]  milliseconds for which it is taken for alive; 0 when it leaves
-- ARGV[4]  a moment (ms)
-- ARGV[5]  how many of the sets are to have it: 1 while it still admits by itself, else 2
-- returns  {ARGV[1], how many live, how many of each set have said so since that moment, now (ms)}

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local life = tonumber(ARGV[3])
local said = {}

for n, key in ipairs(KEYS) do
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if life > 0 then -- said before Redis's clock was set back: who lives will say so again
        redis.call('ZREMRANGEBYSCORE', key, '(' .. now + life, '+inf')
    end
    if life > 0 and n <= tonumber(ARGV[5]) then
        redis.call('ZADD', key, now + life, ARGV[2])
        redis.call('PEXPIRE', key, life)
    else
        redis.call('ZREM', key, ARGV[2])
    end
    said[n] = redis.call('ZCOUNT', key, '(' .. (ARGV[4] + life), '+inf')
end
return { ARGV[1], redis.call('ZCARD', KEYS[1]), said[1], said[2], now }
