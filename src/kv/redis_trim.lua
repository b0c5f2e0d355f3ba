-- Lets go of the oldest chunks. ARGV: their entries, oldest first. KEYS[4] and on: their keys.
-- Gives 1, or 0 if they are not the oldest any more.
if standing() == NOWHERE or redis.call('ZRANGE', KEYS[3], 0, 0)[1] ~= ARGV[1] then
  return 0
end
for at = 1, #ARGV do
  redis.call('ZREM', KEYS[3], ARGV[at])
  redis.call('UNLINK', KEYS[3 + at])
end
redis.call('HSET', KEYS[1], 'oldest', string.sub(ARGV[#ARGV], 1, #NOWHERE), 'chunks', redis.call('ZCARD', KEYS[3]))
return 1
