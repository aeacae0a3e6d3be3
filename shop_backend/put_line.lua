-- Set a line of a cart, unless that would be one line too many.
-- KEYS  1 cart (hash: quantity of each sku)
-- ARGV  1 sku, 2 quantity (0 takes the line away), 3 lines that a cart may have, 4 lifetime (s)
-- returns 1 when it is so, 0 when the cart is full
if ARGV[2] == '0' then
    redis.call('HDEL', KEYS[1], ARGV[1])
elseif redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
    return 0
else
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
