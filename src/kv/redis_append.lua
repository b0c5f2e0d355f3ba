-- Appends a chunk if the place stands at its predecessor. KEYS[4]: the chunk's key.
-- ARGV: predecessor, id, mq offset, entry in the order of chunks, the chunk, number of sources that changed,
-- of each its name and progress, then the names of the sources to forget.
-- Gives where the place stands if that is elsewhere, or nothing.
local tip = standing()
if tip ~= ARGV[1] then
  return tip
end
-- First a write that a full server refuses: so it refuses all.
redis.call('SET', KEYS[4], ARGV[5])
if tip == NOWHERE then
  redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[1], 'oldest', NOWHERE)
end
redis.call('ZADD', KEYS[3], 0, ARGV[4])
local forget = 7 + 2 * tonumber(ARGV[6])
for at = 7, forget - 1, 2 do
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
end
for at = forget, #ARGV do
  redis.call('HDEL', KEYS[2], ARGV[at])
end
redis.call('HSET', KEYS[1], 'tip', ARGV[2], 'offset', ARGV[3],
  'sources', redis.call('HLEN', KEYS[2]), 'chunks', redis.call('ZCARD', KEYS[3]))
return false
