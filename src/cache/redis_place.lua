-- A partition's place: KEYS[1] tip and record, KEYS[2] the sources announced, KEYS[3] the days that have blocks.
-- Tips are texts of one length, so that their order is that of their bytes; numbers of Lua would be too small.
local NOWHERE = '00000000000000000000.00000000000000000000'

-- Where the place stands. KEYS[1] counts what the others hold: if Redis has let go of one of them, all of it counts as lost, and
-- the owner says everything again.
local function standing()
  local place = redis.call('HMGET', KEYS[1], 'tip', 'sources', 'days')
  if place[1] and redis.call('HLEN', KEYS[2]) == tonumber(place[2])
      and redis.call('HLEN', KEYS[3]) == tonumber(place[3]) then
    return place[1]
  end
  return NOWHERE
end

-- The day of a field of KEYS[3], `TABLE:DAY`.
local function day_of(field)
  return tonumber(string.sub(field, 18))
end
