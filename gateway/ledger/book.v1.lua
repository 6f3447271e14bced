-- Tollgate ledger, version 1: what every verb below shares; it stands before each of them.
-- A place is {key, unit, amount, step, length, keep, share}; a take is {key, unit, amount, slot, keep, share}; times are
-- unix ms; a share is '' for all of a request, else the name of who served that share.
-- Calendar counters have the fields s (spent) and r (reserved); rolling ones have a pair for each slot: s123, r123.
-- All integers stay below 2^53, where Lua is exact.

local KEEP = 16 * 86400000

local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Spent and reserved of a place now, and the fields of slots that have left.
local function sums(place, now)
  local key, step, length = place[1], place[4], place[5]
  if step == 0 then
    local found = redis.call('HMGET', key, 's', 'r')
    return tonumber(found[1] or 0), tonumber(found[2] or 0), {}
  end
  local first, spent, reserved, gone = math.floor((now - length) / step), 0, 0, {}
  local found = redis.call('HGETALL', key)
  for i = 1, #found, 2 do
    local field, amount = found[i], tonumber(found[i + 1])
    if tonumber(string.sub(field, 2)) < first then
      gone[#gone + 1] = field
    elseif string.byte(field) == 115 then
      spent = spent + amount
    else
      reserved = reserved + amount
    end
  end
  return spent, reserved, gone
end

-- A place as a hold of this moment remembers it.
local function take(place, now)
  local step = place[4]
  if step == 0 then return {place[1], place[2], place[3], 0, place[6], place[7]} end
  local slot = math.floor(now / step)
  return {place[1], place[2], place[3], slot, (slot + 1) * step + place[5], place[7]}
end

local function change(key, field, amount)
  if amount == 0 then return end
  -- A counter that was lost never goes below zero: that would be room that is not there.
  if redis.call('HINCRBY', key, field, amount) <= 0 then redis.call('HDEL', key, field) end
end

local function add(taken, spent, reserved, now)
  local key, slot, keep = taken[1], taken[4], taken[5]
  local suffix = ''
  if slot > 0 then suffix = string.format('%.0f', slot) end
  change(key, 's' .. suffix, spent)
  change(key, 'r' .. suffix, reserved)
  if slot > 0 then
    redis.call('PEXPIRE', key, math.max(keep - now, 0) + KEEP)
  elseif keep > 0 then
    redis.call('PEXPIRE', key, math.max(keep - now, KEEP))
  end
end

-- What is booked when nobody settles: a place in flight is only given back.
local function presumed(taken)
  if taken[2] == 'concurrent' then return 0 end
  return taken[3]
end

-- What was used, by take.  `used` is packed {cost, requests, tokens in, tokens out}; `shares` is '' or packed
-- {share = used}; who is not named used nothing.
local COLUMNS = {cost = {1}, requests = {2}, tokens = {3, 4}, input_tokens = {3}, output_tokens = {4}}
local function truth(used, shares)
  local whole, parts = cmsgpack.unpack(used), shares ~= '' and cmsgpack.unpack(shares)
  return function(taken)
    local share, from, sum = taken[6], whole, 0
    if parts and share and share ~= '' then from = parts[share] or {0, 0, 0, 0} end
    for _, column in ipairs(COLUMNS[taken[2]] or {}) do sum = sum + from[column] end
    return sum
  end
end

-- Whether this Redis knows all it was told.  Its epoch is the name of the server process whose data was looked at, or
-- begins with '!' while that goes on; it is gone when the data is.  `server`: '' when not known, '-' to not ask.
local function remembers(epoch, server)
  if server == '-' then return true end
  local known = redis.call('GET', epoch)
  return known and string.sub(known, 1, 1) ~= '!' and string.sub(known, 1, #server) == server
end
