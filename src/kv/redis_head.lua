-- Gives tip, mq offset, predecessor of the oldest chunk, and names and progress of the sources; nothing if nothing stands.
local tip = standing()
if tip == NOWHERE then
  return {}
end
local head = redis.call('HMGET', KEYS[1], 'offset', 'oldest')
return {tip, head[1], head[2], redis.call('HGETALL', KEYS[2])}
