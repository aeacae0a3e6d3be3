-- A newer version was committed: whatever is older goes, and is not taken any more.
-- KEYS  1 value (hash: version, body), 2 floor (string: the oldest version allowed)
-- ARGV  1 version, 2 for how long to remember it (ms)
-- returns 1
local version = tonumber(ARGV[1])
if version >= tonumber(redis.call('GET', KEYS[2]) or '0') then
    redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
if version > tonumber(redis.call('HGET', KEYS[1], 'version') or ARGV[1]) then redis.call('DEL', KEYS[1]) end
return 1
