-- A partition's place: KEYS[1] the head, KEYS[2] the sources' progress, KEYS[3] the chunks in order.
-- Tips are texts of one length, so that their order is that of their bytes; numbers of Lua would be too small.
local NOWHERE = '00000000000000000000.00000000000000000000'

-- Where the place stands. The head counts what the others hold: if Redis was made to let go of one of them, all of it counts
-- as lost, and the gates say everything again.
local function standing()
  local head = redis.call('HMGET', KEYS[1], 'tip', 'sources', 'chunks')
  if head[1] and redis.call('HLEN', KEYS[2]) == tonumber(head[2])
      and redis.call('ZCARD', KEYS[3]) == tonumber(head[3]) then
    return head[1]
  end
  return NOWHERE
end
