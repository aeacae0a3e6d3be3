-- Say that a worker lives, and count those that do, over all hosts.
-- KEYS[1]  sorted set of workers, each until when it is taken for alive (ms); in the slot of the counters
-- ARGV[1]  a number of the caller's, returned first: proof that this reply is this call's
-- ARGV[2]  the worker
-- ARGV[3]  milliseconds for which it is taken for alive; 0 when it leaves
-- ARGV[4]  a moment (ms)
-- returns  {ARGV[1], how many live, how many of them have said so since that moment, now (ms)}

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local life = tonumber(ARGV[3])

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if life > 0 then
    redis.call('ZADD', KEYS[1], now + life, ARGV[2])
    redis.call('PEXPIRE', KEYS[1], life)
else
    redis.call('ZREM', KEYS[1], ARGV[2])
end
return {
    ARGV[1],
    redis.call('ZCARD', KEYS[1]),
    redis.call('ZCOUNT', KEYS[1], '(' .. (ARGV[4] + life), '+inf'),
    now,
}
