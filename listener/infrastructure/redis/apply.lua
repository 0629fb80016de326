-- Compare and set: applies a list of commands and appends outbox rows if the head is what the writer expects.
-- It moves bytes and compares strings; the only number it makes is the next row's.
--
-- KEYS  1 head, 2 outbox
-- ARGV  1 hash, 2 gen, 3 seq that the head must have ('' for a stream that does not exist yet)
--       4 epoch of the rows, 5 most rows kept, 6 number of rows, then event and data of each row,
--       then commands: number of words, words…
-- Returns {1, seq} if applied, {0, hash, gen, seq} as found otherwise.

local found = redis.call('HMGET', KEYS[1], 'hash', 'gen', 'seq')
for i = 1, 3 do
  if (found[i] or '') ~= ARGV[i] then
    return {0, found[1] or '', found[2] or '', found[3] or ''}
  end
end

local rows = tonumber(ARGV[6])
local at = 7 + 2 * rows
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + words))
  at = at + words + 1
end

local seq = tonumber(ARGV[3]) or 0
if rows > 0 then
  for at = 7, 5 + 2 * rows, 2 do
    seq = seq + 1
    redis.call('XADD', KEYS[2], ARGV[4] .. '-' .. string.format('%d', seq), 'e', ARGV[at], 'd', ARGV[at + 1])
  end
  redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[5])
  redis.call('HSET', KEYS[1], 'seq', string.format('%d', seq))
end
return {1, string.format('%d', seq)}
