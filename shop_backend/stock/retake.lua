-- Take stock again for an order whose hold ended without a sale; a hold still open is kept.
-- The new round makes a release under way for the old one void.
-- For an order paid late nothing is queued; for one that is replayed from the dead letters its intent is,
-- with the new round, epoch and time.
-- KEYS  1 epoch, 2 sku (hash), 3 hold (hash), 4 holds (zset), 5 bought (hash), 6 open (hash), 7 orders (stream)
-- ARGV  1 epoch, 2 order id, 3 sku, 4 user, 5 quantity, 6 hold for (ms), then the fields of the intent to queue
-- returns {order id, verdict, detail...}: held round | confirmed | closed | unknown | cap | sold free
local id, sku, user, quantity = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {id, 'closed'} end

local state = redis.call('HGET', KEYS[3], 'state')
if state == 'confirmed' then return {id, 'confirmed'} end

local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(micros / 1000)
local round = string.format('%.0f', micros)
local expires = string.format('%.0f', now + tonumber(ARGV[6]))

if state ~= 'held' then
    local stock = redis.call('HMGET', KEYS[2], 'free', 'cap')
    local free, cap = tonumber(stock[1]), tonumber(stock[2])
    if not free then return {id, 'unknown'} end
    local bought = tonumber(redis.call('HGET', KEYS[5], user) or '0')
    if bought + quantity > cap then return {id, 'cap'} end
    if quantity < 1 or free < quantity then return {id, 'sold', stock[1]} end
end

-- From here on nothing refuses; the stream goes first, since out of memory it is the first write that fails.
if #ARGV > 6 then
    redis.call('XADD', KEYS[7], '*', 'expires_ms', expires, 'at_ms', string.format('%.0f', now), 'round', round,
        'epoch', ARGV[1], unpack(ARGV, 7))
end
if state ~= 'held' then
    redis.call('HINCRBY', KEYS[2], 'free', -quantity)
    redis.call('HINCRBY', KEYS[5], user, quantity)
    redis.call('HINCRBY', KEYS[6], user, 1)
    redis.call('HDEL', KEYS[3], 'origin') -- its count ended with the first hold
end
redis.call('HSET', KEYS[3], 'id', id, 'sku', sku, 'user', user, 'quantity', ARGV[5], 'state', 'held',
    'round', round, 'expires_ms', expires)
redis.call('PERSIST', KEYS[3])
redis.call('ZADD', KEYS[4], expires, id)
return {id, 'held', round}
