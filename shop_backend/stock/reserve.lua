-- Take stock for an order and write down its intent, or refuse and change nothing.
-- KEYS  1 epoch, 2 sku (hash), 3 hold (hash), 4 holds (zset), 5 bought (hash), 6 open (hash), 7 orders (stream)
-- ARGV  1 epoch, 2 order id, 3 sku, 4 user, 5 quantity, 6 hold for (ms), 7 open holds allowed,
--       8 fingerprint of the body, 9 email, 10 unit price (cents), 11 currency
-- returns {order id, verdict, detail...}: held expires_ms round new-or-again | reused | closed | unknown |
--         early starts_ms | over ends_ms | cap left | open | sold free
local id, sku, user, quantity = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {id, 'closed'} end

local hold = redis.call('HMGET', KEYS[3], 'body', 'expires_ms', 'round')
if hold[1] then
    if hold[1] ~= ARGV[8] then return {id, 'reused'} end
    return {id, 'held', hold[2], hold[3], 'again'}
end

local stock = redis.call('HMGET', KEYS[2], 'free', 'starts_ms', 'ends_ms', 'cap')
local free, starts, ends, cap = tonumber(stock[1]), tonumber(stock[2]), tonumber(stock[3]), tonumber(stock[4])
if not free then return {id, 'unknown'} end

local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(micros / 1000)
if now < starts then return {id, 'early', stock[2]} end
if ends > 0 and now >= ends then return {id, 'over', stock[3]} end

local bought = tonumber(redis.call('HGET', KEYS[5], user) or '0')
if bought + quantity > cap then return {id, 'cap', tostring(cap - bought)} end
if tonumber(redis.call('HGET', KEYS[6], user) or '0') >= tonumber(ARGV[7]) then return {id, 'open'} end
if quantity < 1 or free < quantity then return {id, 'sold', stock[1]} end

-- From here on nothing refuses: an error in mid-script would not roll back. XADD goes first, since out of
-- memory it is the first write that fails.
local expires = string.format('%.0f', now + tonumber(ARGV[6]))
local round = string.format('%.0f', micros)
redis.call('XADD', KEYS[7], '*', 'order_id', id, 'user', user, 'sku', sku, 'quantity', ARGV[5],
    'email', ARGV[9], 'unit_cents', ARGV[10], 'currency', ARGV[11], 'expires_ms', expires,
    'at_ms', string.format('%.0f', now), 'round', round, 'epoch', ARGV[1])
redis.call('HINCRBY', KEYS[2], 'free', -quantity)
redis.call('HSET', KEYS[3], 'sku', sku, 'user', user, 'quantity', ARGV[5], 'state', 'held',
    'round', round, 'expires_ms', expires, 'body', ARGV[8])
redis.call('ZADD', KEYS[4], expires, id)
redis.call('HINCRBY', KEYS[5], user, quantity)
redis.call('HINCRBY', KEYS[6], user, 1)
return {id, 'held', expires, round, 'new'}
