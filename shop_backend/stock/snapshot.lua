-- Free stock and every open hold of a shard, as of one moment.
-- KEYS  1 epoch, 2 skus (set), 3 holds (zset)
-- ARGV  1 prefix of sku keys, 2 prefix of hold keys (same hash slot)
-- returns {epoch or '', {sku, free, ...}, {order id, sku, quantity, ...}, {sku neither listed nor on sale, ...}}
local free, holds, retired = {}, {}, {}
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
for _, sku in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    local stock = redis.call('HMGET', ARGV[1] .. sku, 'free', 'listed', 'ends_ms')
    table.insert(free, sku)
    table.insert(free, stock[1] or '0')
    local ends = tonumber(stock[3] or '0')
    if stock[2] == '0' and ends > 0 and ends <= now then table.insert(retired, sku) end
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    local seed = #id == 36 and string.sub(id, 16) or id -- as stock/order_ids.py has it
    local hold = redis.call('HMGET', ARGV[2] .. seed, 'sku', 'quantity')
    if hold[1] then
        table.insert(holds, id)
        table.insert(holds, hold[1])
        table.insert(holds, hold[2])
    end
end
return {redis.call('GET', KEYS[1]) or '', free, holds, retired}
