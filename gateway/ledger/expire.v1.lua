-- KEYS: holds, outbox.  ARGV: now or '', what stands before an id in a hold's key, how many at most, ms to keep presumptions.
-- Books open holds past their expiry as presumed spend, with their drafts as records.  Answers how many.
local now = clock(ARGV[1])
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])
for _, id in ipairs(due) do
  local key = ARGV[2] .. id
  local found = redis.call('GET', key)
  redis.call('ZREM', KEYS[1], id)
  if found and string.sub(found, 1, 1) == 'O' then
    local body = string.sub(found, 2)
    local hold = cmsgpack.unpack(body)
    redis.call('DEL', key)
    for _, taken in ipairs(hold[2]) do add(taken, presumed(taken), -taken[3], now) end
    redis.call('SET', key, 'P' .. body, 'PX', ARGV[4])
    if hold[1] ~= '' then redis.call('XADD', KEYS[2], '*', 'record', hold[1]) end
  end
end
return #due
