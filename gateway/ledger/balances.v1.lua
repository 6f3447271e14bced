-- KEYS: any of the shard.  ARGV: now or '', windows' start, windows' end, places.
-- Answers {0, now, spent, reserved, ...} by place, or {1, now} when a window has moved.
local now = clock(ARGV[1])
if now < tonumber(ARGV[2]) or now >= tonumber(ARGV[3]) then return {1, now} end
local answer = {0, now}
for _, place in ipairs(cmsgpack.unpack(ARGV[4])) do
  local spent, reserved = sums(place, now)
  answer[#answer + 1] = spent
  answer[#answer + 1] = reserved
end
return answer
