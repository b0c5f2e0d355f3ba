-- Gives the tip, and the progress announced: of the sources in ARGV, or of all without ARGV.
local tip = standing()
if tip == NOWHERE then
  return {NOWHERE, {}}
end
if #ARGV == 0 then
  return {tip, redis.call('HVALS', KEYS[2])}
end
local announced = {}
for at = 1, #ARGV do
  announced[at] = redis.call('HGET', KEYS[2], ARGV[at])
end
return {tip, announced}
