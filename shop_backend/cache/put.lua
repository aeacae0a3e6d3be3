-- Keep a value, unless a newer one is there or was announced.
-- KEYS  1 value (hash: version, body), 2 floor (string: the oldest version allowed)
-- ARGV  1 version, 2 body, 3 lifetime (ms)
-- returns 1 when it is kept, 0 when it is too old
local version = tonumber(ARGV[1])
if version < tonumber(redis.call('GET', KEYS[2]) or '0') then return 0 end
if version < tonumber(redis.call('HGET', KEYS[1], 'version') or '0') then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'body', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
