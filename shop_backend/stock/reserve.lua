-- Take stock for an order and write down its intent, or refuse and change nothing.
-- KEYS  1 epoch, 2 sku (hash), 3 hold (hash), 4 holds (zset), 5 bought (hash), 6 open (hash), 7 orders (stream),
--       8 origins (hash), 9 series (hash)
-- ARGV  1 epoch, 2 seed, 3 sku, 4 user, 5 quantity, 6 hold for (ms), 7 open holds allowed,
--       8 fingerprint of the body, 9 email, 10 unit price (cents), 11 currency,
--       12 origin ('': not told), 13 open holds allowed to it, 14 orders in a partition, 15 traceparent,
--       16 language, 17 phone ('': none)
-- returns {seed, verdict, detail...}: held order_id expires_ms round new-or-again | reused | closed | unknown |
--         early starts_ms | over ends_ms | cap left | open | origin | sold free
local seed, sku, user, quantity, origin = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[12]

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {seed, 'closed'} end

local hold = redis.call('HMGET', KEYS[3], 'body', 'id', 'expires_ms', 'round')
if hold[1] then
    if hold[1] ~= ARGV[8] then return {seed, 'reused'} end
    return {seed, 'held', hold[2], hold[3], hold[4], 'again'}
end

local stock = redis.call('HMGET', KEYS[2], 'free', 'starts_ms', 'ends_ms', 'cap')
local free, starts, ends, cap = tonumber(stock[1]), tonumber(stock[2]), tonumber(stock[3]), tonumber(stock[4])
if not free then return {seed, 'unknown'} end

local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(micros / 1000)
if now < starts then return {seed, 'early', stock[2]} end
if ends > 0 and now >= ends then return {seed, 'over', stock[3]} end

local bought = tonumber(redis.call('HGET', KEYS[5], user) or '0')
if bought + quantity > cap then return {seed, 'cap', tostring(cap - bought)} end
if tonumber(redis.call('HGET', KEYS[6], user) or '0') >= tonumber(ARGV[7]) then return {seed, 'open'} end
if origin ~= '' and tonumber(redis.call('HGET', KEYS[8], origin) or '0') >= tonumber(ARGV[13]) then
    return {seed, 'origin'}
end
if quantity < 1 or free < quantity then return {seed, 'sold', stock[1]} end

-- The order's id, as stock/order_ids.py describes it: a full partition is followed by the next.
local series = redis.call('HMGET', KEYS[9], 'partition', 'orders')
local partition, orders = tonumber(series[1] or '0'), tonumber(series[2] or '0')
if orders >= tonumber(ARGV[14]) then partition, orders = partition + 1, 0 end
local id = string.format('%08x-%04x-8', partition, math.floor(now / 60000) % 65536) .. seed

-- From here on nothing refuses: an error in mid-script would not roll back. XADD goes first, since out of
-- memory it is the first write that fails.
local expires = string.format('%.0f', now + tonumber(ARGV[6]))
local round = string.format('%.0f', micros)
redis.call('XADD', KEYS[7], '*', 'order_id', id, 'user', user, 'sku', sku, 'quantity', ARGV[5],
    'email', ARGV[9], 'unit_cents', ARGV[10], 'currency', ARGV[11], 'expires_ms', expires,
    'at_ms', string.format('%.0f', now), 'round', round, 'epoch', ARGV[1], 'trace', ARGV[15],
    'language', ARGV[16], 'phone', ARGV[17], 'body', ARGV[8])
redis.call('HSET', KEYS[9], 'partition', partition, 'orders', orders + 1)
redis.call('HINCRBY', KEYS[2], 'free', -quantity)
redis.call('HSET', KEYS[3], 'id', id, 'sku', sku, 'user', user, 'quantity', ARGV[5], 'state', 'held',
    'round', round, 'expires_ms', expires, 'body', ARGV[8], 'origin', origin)
redis.call('ZADD', KEYS[4], expires, id)
redis.call('HINCRBY', KEYS[5], user, quantity)
redis.call('HINCRBY', KEYS[6], user, 1)
if origin ~= '' then redis.call('HINCRBY', KEYS[8], origin, 1) end
return {seed, 'held', id, expires, round, 'new'}
