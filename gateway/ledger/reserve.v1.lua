-- KEYS: hold, holds, epoch.  ARGV: now or '', windows' start, windows' end, ttl ms, id, {places, checks}, draft, server.
-- A check is {index of place, limit, amount} for each line; a limit of -1 never refuses.
-- Answers {0, now, spent, reserved, ...} by place, {1, now} when a window has moved, {2, now, line, spent, reserved, wait}
-- when a line is full, {3, now} when the id was used before, {4, now} when this Redis may have forgotten something.
local now = clock(ARGV[1])
if not remembers(KEYS[3], ARGV[8]) then return {4, now} end
if redis.call('EXISTS', KEYS[1]) == 1 then return {3, now} end
if now < tonumber(ARGV[2]) or now >= tonumber(ARGV[3]) then return {1, now} end
local asked = cmsgpack.unpack(ARGV[6])
local places, checks = asked[1], asked[2]

-- Milliseconds until enough slots have left; -1 when the window is not a rolling one.
local function wait(place, excess)
  local step, length = place[4], place[5]
  if step == 0 then return -1 end
  local used, slots, found = {}, {}, redis.call('HGETALL', place[1])
  for i = 1, #found, 2 do
    local slot = tonumber(string.sub(found[i], 2))
    if slot >= math.floor((now - length) / step) then
      if not used[slot] then slots[#slots + 1] = slot end
      used[slot] = (used[slot] or 0) + tonumber(found[i + 1])
    end
  end
  table.sort(slots)
  for _, slot in ipairs(slots) do
    excess = excess - used[slot]
    if excess <= 0 then return (slot + 1) * step + length - now end
  end
  return length
end

local spent, reserved, gone = {}, {}, {}
for i, place in ipairs(places) do spent[i], reserved[i], gone[i] = sums(place, now) end
for line, check in ipairs(checks) do
  local i, limit, amount = check[1], check[2], check[3]
  local excess = spent[i] + reserved[i] + amount - limit
  if limit >= 0 and excess > 0 then return {2, now, line, spent[i], reserved[i], wait(places[i], excess)} end
end

local takes, answer = {}, {0, now}
for i, place in ipairs(places) do
  takes[i] = take(place, now)
  add(takes[i], 0, place[3], now)
  if #gone[i] > 0 then redis.call('HDEL', place[1], unpack(gone[i])) end
  answer[#answer + 1] = spent[i]
  answer[#answer + 1] = reserved[i] + place[3]
end
redis.call('SET', KEYS[1], 'O' .. cmsgpack.pack({ARGV[7], takes}))
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[4]), ARGV[5])
return answer
