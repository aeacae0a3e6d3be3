-- Make open holds final: their stock is sold. Again, or after another end: changes nothing.
-- KEYS  1 epoch, 2 holds (zset), 3 open (hash), 4 origins (hash), then each order's hold (hash)
-- ARGV  1 epoch, 2 remember for (ms), then each order's id
-- returns {first order id, the state each is in now: confirmed released expired | closed | unknown, ...}
local answer = {ARGV[3]}
local closed = redis.call('GET', KEYS[1]) ~= ARGV[1]
for i = 5, #KEYS do
    local state = 'closed'
    if not closed then
        local hold = redis.call('HMGET', KEYS[i], 'state', 'user', 'origin')
        state = hold[1] or 'unknown'
        if state == 'held' then
            state = 'confirmed'
            redis.call('HSET', KEYS[i], 'state', state)
            redis.call('PEXPIRE', KEYS[i], ARGV[2])
            redis.call('ZREM', KEYS[2], ARGV[i - 2])
            for k, name in pairs({[3] = hold[2], [4] = hold[3]}) do
                if name and name ~= '' and redis.call('HINCRBY', KEYS[k], name, -1) <= 0 then
                    redis.call('HDEL', KEYS[k], name)
                end
            end
        end
    end
    answer[#answer + 1] = state
end
return answer
