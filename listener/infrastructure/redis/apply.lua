-- Compare and set: applies writes and appends outbox rows if the head is what the writer expects.
-- It moves bytes and compares strings; the only number it makes is the next row's.
--
-- KEYS  1 head, 2 outbox, 3 the stream's private hash
-- ARGV  1 hash, 2 gen, 3 seq, 4 asOf that the head must have ('' for a stream that does not exist yet)
--       5 number of commits begun and done so far ('' where the writer does not know)
--       6 epoch of the rows, 7 most rows kept, 8 number of rows, then event and data of each row,
--       then four parts, each after the number of its entries:
--         lists    key, items kept, number of items, items: pushed, and the list cut to its newest
--         series   key, '1' if the first member takes the place of what has its score, number of words, and
--                  these: scores and members of a sorted set
--         hashes   after the number and names of their fields: key, values
--         commands number of words, words
-- Returns {1, seq, done} if applied, {0, hash, gen, seq, asOf, begun, done} as found otherwise. A head that is
-- being removed has none of these fields, but one that says so.
--
-- Redis runs a script alone but may, after a crash, replay a part of it (see docs/operations.md). The counters
-- `begun` and `done` differ for ever after that.

local call = redis.call
local found = call('HMGET', KEYS[1], 'hash', 'gen', 'seq', 'asOf', 'removing')
local same = not found[5]
for i = 1, 4 do
  same = same and (found[i] or '') == ARGV[i]
end
local counters = call('HMGET', KEYS[3], 'begun', 'done')
if same and ARGV[5] ~= '' then
  same = counters[1] == ARGV[5] and counters[2] == ARGV[5]
end
if not same then
  return {0, found[1] or '', found[2] or '', found[3] or '', found[4] or '', counters[1] or '', counters[2] or ''}
end

call('HINCRBY', KEYS[3], 'begun', 1)
local rows = tonumber(ARGV[8])
local at = 9 + 2 * rows

-- The number at the place we have come to.
local function number()
  at = at + 1
  return tonumber(ARGV[at - 1])
end

for _ = 1, number() do
  local key, kept, items = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  at = at + 3 + items
  if call('LPUSH', key, unpack(ARGV, at - items, at - 1)) > kept then
    call('LTRIM', key, 0, kept - 1)
  end
end

for _ = 1, number() do
  local key, replaces, words = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  at = at + 3
  if replaces == '1' then
    call('ZREMRANGEBYSCORE', key, ARGV[at], ARGV[at])
  end
  call('ZADD', key, unpack(ARGV, at, at + words - 1))
  at = at + words
end

local hashes, fields, hash = number(), number(), {}
for i = 1, fields do
  hash[2 * i - 1] = ARGV[at]
  at = at + 1
end
for _ = 1, hashes do
  for i = 1, fields do
    hash[2 * i] = ARGV[at + i]
  end
  call('HSET', ARGV[at], unpack(hash))
  at = at + 1 + fields
end

for _ = 1, number() do
  local words = number()
  call(unpack(ARGV, at, at + words - 1))
  at = at + words
end

local seq = tonumber(ARGV[3]) or 0
if rows > 0 then
  for at = 9, 7 + 2 * rows, 2 do
    seq = seq + 1
    call('XADD', KEYS[2], string.format('%s-%d', ARGV[6], seq), 'e', ARGV[at], 'd', ARGV[at + 1])
  end
  call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[7])
  call('HSET', KEYS[1], 'seq', string.format('%d', seq))
end
local done = call('HINCRBY', KEYS[3], 'done', 1)
return {1, string.format('%d', seq), string.format('%d', done)}
