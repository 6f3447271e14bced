-- KEYS: hold, holds.  ARGV: now or '', ttl ms, id, takes, draft.
-- Takes an open hold back that was forgotten, whether there is room or not: its request is under way.  Answers 1 or 0.
local now = clock(ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local takes = cmsgpack.unpack(ARGV[4])
for _, taken in ipairs(takes) do add(taken, 0, taken[3], now) end
redis.call('SET', KEYS[1], 'O' .. cmsgpack.pack({ARGV[5], takes}))
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[2]), ARGV[3])
return 1
