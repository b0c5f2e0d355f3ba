-- ARGV: a chunk's id, or nowhere for the start; how many entries at most.
-- Gives the tip, the id itself or the predecessor of the oldest chunk, and the entries of the chunks that follow.
local tip = standing()
if tip == NOWHERE then
  return {NOWHERE, ARGV[1], {}}
end
local after = ARGV[1]
if after == NOWHERE then
  after = redis.call('HGET', KEYS[1], 'oldest')
end
-- An entry begins with the id and a space, which comes before '~'.
return {tip, after, redis.call('ZRANGEBYLEX', KEYS[3], '(' .. after .. '~', '+', 'LIMIT', 0, tonumber(ARGV[2]))}
