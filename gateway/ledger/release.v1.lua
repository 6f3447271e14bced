-- KEYS: hold, holds.  ARGV: now or '', id, ms to remember the id.
-- Frees an open hold.  An id not known is remembered too: its reserve may still be under way on a broken connection.
local now = clock(ARGV[1])
local found = redis.call('GET', KEYS[1])
local state = found and string.sub(found, 1, 1)
if state == 'P' or state == 'S' then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
if state == 'O' then
  for _, taken in ipairs(cmsgpack.unpack(string.sub(found, 2))[2]) do add(taken, 0, -taken[3], now) end
end
redis.call('SET', KEYS[1], 'R', 'PX', ARGV[3])
return 1
