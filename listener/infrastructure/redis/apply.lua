-- Compare and set: applies a list of commands and appends outbox rows if the head is what the writer expects.
-- It moves bytes and compares strings; the only number it makes is the next row's.
--
-- KEYS  1 head, 2 outbox, 3 the stream's private hash
-- ARGV  1 hash, 2 gen, 3 seq, 4 asOf that the head must have ('' for a stream that does not exist yet)
--       5 number of commits begun and done so far ('' where the writer does not know)
--       6 epoch of the rows, 7 most rows kept, 8 number of rows, then event and data of each row,
--       then commands: number of words, words…
-- Returns {1, seq, done} if applied, {0, hash, gen, seq, asOf, begun, done} as found otherwise. A head that is
-- being removed has none of these fields, but one that says so.
--
-- Redis runs a script alone but may, after a crash, replay a part of it (see docs/operations.md). The counters
-- `begun` and `done` differ for ever after that.

local found = redis.call('HMGET', KEYS[1], 'hash', 'gen', 'seq', 'asOf', 'removing')
local same = not found[5]
for i = 1, 4 do
  same = same and (found[i] or '') == ARGV[i]
end
local counters = redis.call('HMGET', KEYS[3], 'begun', 'done')
if same and ARGV[5] ~= '' then
  same = counters[1] == ARGV[5] and counters[2] == ARGV[5]
end
if not same then
  return {0, found[1] or '', found[2] or '', found[3] or '', found[4] or '', counters[1] or '', counters[2] or ''}
end

redis.call('HINCRBY', KEYS[3], 'begun', 1)
local rows = tonumber(ARGV[8])
local at = 9 + 2 * rows
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + words))
  at = at + words + 1
end

local seq = tonumber(ARGV[3]) or 0
if rows > 0 then
  for at = 9, 7 + 2 * rows, 2 do
    seq = seq + 1
    redis.call('XADD', KEYS[2], ARGV[6] .. '-' .. string.format('%d', seq), 'e', ARGV[at], 'd', ARGV[at + 1])
  end
  redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[7])
  redis.call('HSET', KEYS[1], 'seq', string.format('%d', seq))
end
local done = redis.call('HINCRBY', KEYS[3], 'done', 1)
return {1, string.format('%d', seq), string.format('%d', done)}
