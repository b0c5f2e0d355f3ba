-- Makes the parts that were written the snapshot. KEYS[1]: the snapshot; then the new parts, then those of the one before.
-- ARGV: generation of the one before (empty: none), milliseconds that its readers may still need it, number of new parts,
-- then what is stored of the new one: epoch, generation, bytes, checksum.
-- Gives 'done', 'changed' if another snapshot is there by now, or 'missing' if a part is not there.
if (redis.call('HGET', KEYS[1], 'generation') or '') ~= ARGV[1] then
  return 'changed'
end
local old = 2 + tonumber(ARGV[3])
for at = 2, old - 1 do
  if redis.call('EXISTS', KEYS[at]) == 0 then
    return 'missing'
  end
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[4], 'generation', ARGV[5], 'bytes', ARGV[6], 'checksum', ARGV[7],
  'parts', ARGV[3])
for at = 2, old - 1 do
  redis.call('PERSIST', KEYS[at])
end
for at = old, #KEYS do
  redis.call('PEXPIRE', KEYS[at], ARGV[2])
end
return 'done'
