-- Record and blocks as of one moment, as far as one answer goes.
-- ARGV: what the groups' keys begin with, table, first day, last day, bytes after which no further group is begun, 'all' or 'some';
-- then the keys of the blocks.
-- Gives tip, record, floor, newest version below it, the day where the next piece begins (empty: there is none), and of each group
-- its day, field, whether it is there, and its blocks: keys and blocks, or the blocks of the keys asked for.
--
-- The groups' keys are not among KEYS, since only the place says which there are. They are in its slot.
local tip = standing()
if tip == NOWHERE then
  return {}
end
local from, to, limit, all = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == 'all'

local days = {}
if to - from < 400 then
  for day = from, to do
    local entry = redis.call('HGET', KEYS[3], ARGV[2] .. ':' .. string.format('%d', day))
    if entry then
      days[#days + 1] = {day, entry}
    end
  end
else
  local fields, prefix = redis.call('HGETALL', KEYS[3]), ARGV[2] .. ':'
  for index = 1, #fields, 2 do
    local day = day_of(fields[index])
    if string.sub(fields[index], 1, #prefix) == prefix and day >= from and day <= to then
      days[#days + 1] = {day, fields[index + 1]}
    end
  end
  table.sort(days, function(one, two) return one[1] < two[1] end)
end

local groups, bytes, rest = {}, 0, ''
for _, found in ipairs(days) do
  local day = string.format('%d', found[1])
  if bytes >= limit then
    rest = day
    break
  end
  local key, blocks, exists = ARGV[1] .. ARGV[2] .. ':' .. day, {}, 1
  if all then
    blocks = redis.call('HGETALL', key)
    if #blocks == 0 then
      exists = 0
    end
  else
    exists = redis.call('EXISTS', key)
    for first = 7, #ARGV, 1000 do
      local some = redis.call('HMGET', key, unpack(ARGV, first, math.min(first + 999, #ARGV)))
      for index = 1, #some do
        blocks[#blocks + 1] = some[index]
      end
    end
  end
  for index = 1, #blocks do
    if blocks[index] then
      bytes = bytes + #blocks[index]
    end
  end
  groups[#groups + 1] = {day, found[2], exists, blocks}
end
local place = redis.call('HMGET', KEYS[1], 'record', 'floor', 'floor_newest')
return {tip, place[1], place[2], place[3], rest, groups}
