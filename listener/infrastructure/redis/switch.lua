-- Puts a generation in the place of the live one, at once for every reader.
--
-- KEYS  live then new: 1, 2 head; 3, 4 markets; then pairs of private keys that change place
-- ARGV  1 hash, 2 gen, 3 seq that the live head must have ('' where there is none); 4 hash, 5 gen of the new head
--       6 gen and epoch to take; 7 live prefix before 'kind', 8 new prefix, 9 the tag and colon before a market
--       10 number of the live intervals, their names, then the names of the new ones
-- Returns {1} if done, {0} if one of the heads is another. Whoever leads loses the lease for a moment, so that
-- it reads what is stored now and not when it next commits.

local live = redis.call('HMGET', KEYS[1], 'hash', 'gen', 'seq')
local new = redis.call('HMGET', KEYS[2], 'hash', 'gen')
for i = 1, 3 do
  if (live[i] or '') ~= ARGV[i] then return {0} end
end
for i = 1, 2 do
  if (new[i] or '') ~= ARGV[i + 3] then return {0} end
end

-- The counters of both generations differ until all is done, should Redis replay a part of this.
redis.call('HINCRBY', KEYS[13], 'begun', 1)
redis.call('HINCRBY', KEYS[14], 'begun', 1)
local tag = ARGV[9]
local intervals = tonumber(ARGV[10])

-- Names of a market's keys, without prefix.
local function names(market, first, last)
  local found = {'stats' .. tag .. market, 'trades' .. tag .. market, 'market' .. tag .. market}
  for i = first, last do
    found[#found + 1] = 'candles' .. tag .. market .. ':' .. ARGV[i]
  end
  return found
end

for _, market in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  local old = names(market, 11, 10 + intervals)
  for i, name in ipairs(old) do
    old[i] = ARGV[7] .. name
  end
  redis.call('UNLINK', unpack(old))
end
for _, market in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  for _, name in ipairs(names(market, 11 + intervals, #ARGV)) do
    redis.pcall('RENAME', ARGV[8] .. name, ARGV[7] .. name) -- a market without trades has only a record
  end
end
for i = 1, #KEYS, 2 do
  if redis.call('EXISTS', KEYS[i + 1]) == 1 then
    redis.call('RENAME', KEYS[i + 1], KEYS[i])
  else
    redis.call('UNLINK', KEYS[i])
  end
end
redis.call('HSET', KEYS[1], 'gen', ARGV[6], 'epoch', ARGV[6], 'seq', '0')
redis.call('HINCRBY', KEYS[13], 'done', 1)
redis.call('SET', ARGV[7] .. 'lease' .. string.sub(ARGV[9], 1, -2), 'switched', 'PX', '1500')
return {1}
