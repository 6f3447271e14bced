-- KEYS: hold, holds, outbox.  ARGV: now or '', id, used, ms to remember the id, record or '', shares or ''.
-- Answers 'settled', 'late', 'again', or 'unknown' having changed nothing: the caller then books the lines (book_unknown).
local now = clock(ARGV[1])
local found = redis.call('GET', KEYS[1])
local state = found and string.sub(found, 1, 1)
if not found or state == 'R' then return 'unknown' end
if state == 'S' then return 'again' end
local used = truth(ARGV[3], ARGV[6])
-- Freeing comes first: a Redis without memory then lets the rest of the script pass.
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
for _, taken in ipairs(cmsgpack.unpack(string.sub(found, 2))[2]) do
  if state == 'O' then
    add(taken, used(taken), -taken[3], now)
  else
    add(taken, used(taken) - presumed(taken), 0, now)
  end
end
redis.call('SET', KEYS[1], 'S', 'PX', ARGV[4])
if ARGV[5] ~= '' then redis.call('XADD', KEYS[3], '*', 'record', ARGV[5]) end
if state == 'O' then return 'settled' end
return 'late'
