-- KEYS: hold, outbox, epoch.  ARGV: now or '', used, ms to remember the id, takes, record or '', shares or '', server.
-- Books the spend of an id this ledger knows nothing of.  Answers 'unknown', 'again' when someone was quicker, or
-- 'blank' when all was forgotten: what is written now would be lost under what will be restored.
local now = clock(ARGV[1])
if ARGV[7] ~= '-' and redis.call('EXISTS', KEYS[3]) == 0 then return 'blank' end
local state = redis.call('GETRANGE', KEYS[1], 0, 0)
if state ~= '' and state ~= 'R' then return 'again' end
local used = truth(ARGV[2], ARGV[6])
for _, taken in ipairs(cmsgpack.unpack(ARGV[4])) do add(taken, used(taken), 0, now) end
redis.call('SET', KEYS[1], 'S', 'PX', ARGV[3])
if ARGV[5] ~= '' then redis.call('XADD', KEYS[2], '*', 'record', ARGV[5]) end
return 'unknown'
