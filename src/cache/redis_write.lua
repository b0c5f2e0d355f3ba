-- One write, if the place stands where it builds on. KEYS[4] and on: the groups of blocks that it touches.
-- ARGV: expected tip, tip, record (empty: as it is), first day that is kept, number of sources announced, number of sources to
-- forget; name and progress of those, names of these; then for each group its field in KEYS[3], newest version put, seconds to
-- live, number of blocks put, number of blocks removed; key and block of those, keys of these.
-- Gives where the place stands if that is elsewhere, or nothing.
--
-- KEYS[3]: `TABLE:DAY` -> `NEWEST LOST`: the newest version that was ever in the group, and that of blocks which Redis has let
-- go of since, if it has. A group without a field does not exist: what has its name is left over.
local tip = standing()
if tip ~= ARGV[1] then
  return tip
end
-- First a write that a full server refuses: so it refuses all.
redis.call('HSET', KEYS[1], 'tip', ARGV[2])
if tip == NOWHERE then
  redis.call('HDEL', KEYS[1], 'record', 'floor', 'floor_newest')
  redis.call('UNLINK', KEYS[2], KEYS[3])
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], 'record', ARGV[3])
end

local at = 7
for _ = 1, tonumber(ARGV[5]) do
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for _ = 1, tonumber(ARGV[6]) do
  redis.call('HDEL', KEYS[2], ARGV[at])
  at = at + 1
end

-- Calls a command with ARGV[at] and the following `count`, some at a time: Lua's stack is small.
local function each(command, key, count)
  local last = at + count - 1
  while at <= last do
    local to = math.min(at + 999, last)
    redis.call(command, key, unpack(ARGV, at, to))
    at = to + 1
  end
end

local floor = redis.call('HMGET', KEYS[1], 'floor', 'floor_newest')
local is_new_day = false
for group = 4, #KEYS do
  local key, field, newest = KEYS[group], ARGV[at], ARGV[at + 1]
  local live, puts, removes = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  at = at + 5
  local entry, exists, lost = redis.call('HGET', KEYS[3], field), redis.call('EXISTS', key) == 1, ''
  if entry then
    local before = string.sub(entry, 1, #NOWHERE)
    lost = exists and string.sub(entry, #NOWHERE + 2) or before
    if newest < before then
      newest = before
    end
  else
    if exists then
      redis.call('UNLINK', key)
    end
    if floor[1] and day_of(field) <= tonumber(floor[1]) then
      lost = floor[2]
    end
    is_new_day = true
  end
  each('HSET', key, 2 * puts)
  each('HDEL', key, removes)
  if redis.call('EXISTS', key) == 1 then
    redis.call('HSET', KEYS[3], field, newest .. ' ' .. lost)
    redis.call('EXPIRE', key, live)
  elseif lost == '' then
    -- All its blocks were removed: there are none.
    redis.call('HDEL', KEYS[3], field)
  else
    redis.call('HSET', KEYS[3], field, newest .. ' ' .. lost)
  end
end

-- Days whose groups have expired are forgotten, and that they are.
if is_new_day then
  local kept, days = tonumber(ARGV[4]), redis.call('HGETALL', KEYS[3])
  for index = 1, #days, 2 do
    local day = day_of(days[index])
    if day < kept then
      redis.call('HDEL', KEYS[3], days[index])
      if not floor[1] or day > tonumber(floor[1]) then
        floor[1] = string.format('%d', day)
      end
      local newest = string.sub(days[index + 1], 1, #NOWHERE)
      if not floor[2] or newest > floor[2] then
        floor[2] = newest
      end
      redis.call('HSET', KEYS[1], 'floor', floor[1], 'floor_newest', floor[2])
    end
  end
end
redis.call('HSET', KEYS[1], 'sources', redis.call('HLEN', KEYS[2]), 'days', redis.call('HLEN', KEYS[3]))
return false
