-- Take what was ordered out of a cart; what was in it beyond that stays.
-- KEYS  1 cart (hash: quantity of each sku)
-- ARGV  1 sku, 2 quantity
-- returns nothing
local there = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if there > tonumber(ARGV[2]) then
    redis.call('HINCRBY', KEYS[1], ARGV[1], -ARGV[2])
elseif there > 0 then
    redis.call('HDEL', KEYS[1], ARGV[1])
end
