-- KEYS: epoch.  ARGV: now or '', server, token.  Reservations are taken again, unless all was forgotten.
local known = redis.call('GET', KEYS[1])
if not known then return 0 end
if string.sub(known, 1, 1) == '!' or string.sub(known, 1, #ARGV[2]) ~= ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[2] .. ':' .. ARGV[3])
end
return 1
