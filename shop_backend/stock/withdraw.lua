-- Take free stock off sale, without an order: as much as there is, at most so much.
-- KEYS  1 epoch, 2 sku (hash)
-- ARGV  1 epoch, 2 sku, 3 at most
-- returns {sku, taken} | {sku, 'closed'}
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {ARGV[2], 'closed'} end

local free = tonumber(redis.call('HGET', KEYS[2], 'free') or '0')
local taken = math.max(0, math.min(free, tonumber(ARGV[3])))
if taken > 0 then redis.call('HINCRBY', KEYS[2], 'free', -taken) end
return {ARGV[2], tostring(taken)}
