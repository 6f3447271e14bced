-- KEYS: epoch.  ARGV: now or '', takes, ids, what stands before an id in a hold's key, ms to remember an id.
-- Raises what is spent to at least the amounts of the takes, and remembers that these ids are settled within them.
local now = clock(ARGV[1])
for _, taken in ipairs(cmsgpack.unpack(ARGV[2])) do
  local field = 's'
  if taken[4] > 0 then field = 's' .. string.format('%.0f', taken[4]) end
  local known = tonumber(redis.call('HGET', taken[1], field) or 0)
  if taken[3] > known then add(taken, taken[3] - known, 0, now) end
end
for _, id in ipairs(cmsgpack.unpack(ARGV[3])) do
  redis.call('SET', ARGV[4] .. id, 'S', 'PX', ARGV[5], 'NX')
end
return 1
