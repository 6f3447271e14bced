-- KEYS: hold, holds.  ARGV: now or '', ttl ms, id.  Answers 1, or 0 when the hold is not open.
local now = clock(ARGV[1])
if redis.call('GETRANGE', KEYS[1], 0, 0) ~= 'O' then return 0 end
local ends = now + tonumber(ARGV[2])
local before = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[3]) or 0)
redis.call('ZADD', KEYS[2], math.max(before, ends), ARGV[3])
return 1
