-- Adds a range of final blocks behind those that are recorded, and drops what is too old or too much.
--
-- KEYS  1 sorted set of blocks with events, 2 what it covers
-- ARGV  1 and 2 number and hash of the last recorded block as the caller knows them ('' if none),
--       3 first block, where all that was recorded before shall go; '' where it shall stay
--       4 last block, 5 its hash, 6 its time in seconds,
--       7 time of the oldest block that is kept, 8 most bytes, 9 most blocks dropped at once,
--       then number and member of each block with events; a member begins with `[<number>,<time>`
-- Returns what is covered then: first, last, hash, time.

local call = redis.call
local found = call('HMGET', KEYS[2], 'last', 'hash', 'bytes')
local same = (found[1] or '') == ARGV[1] and (found[2] or '') == ARGV[2]
if same then
  local bytes = tonumber(found[3] or '0')
  if ARGV[3] ~= '' then
    call('DEL', KEYS[1])
    call('HSET', KEYS[2], 'first', ARGV[3])
    bytes = 0
  end
  for i = 10, #ARGV, 2 do
    call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
    bytes = bytes + #ARGV[i + 1]
  end
  for _ = 1, tonumber(ARGV[9]) do
    local oldest = call('ZRANGE', KEYS[1], 0, 0)[1]
    if not oldest then break end
    local number, time = string.match(oldest, '^%[(%d+),(%d+)')
    if tonumber(time) >= tonumber(ARGV[7]) and bytes <= tonumber(ARGV[8]) then break end
    call('ZREMRANGEBYRANK', KEYS[1], 0, 0)
    call('HSET', KEYS[2], 'first', string.format('%.0f', tonumber(number) + 1))
    bytes = bytes - #oldest
  end
  call('HSET', KEYS[2], 'last', ARGV[4], 'hash', ARGV[5], 'time', ARGV[6], 'bytes', string.format('%.0f', bytes))
end
return call('HMGET', KEYS[2], 'first', 'last', 'hash', 'time')
