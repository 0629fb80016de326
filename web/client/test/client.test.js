// @ts-check
/** The reader against a real server: ranges, filling, order and bounds. */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { LIMITS, Reader, compare, continuous, fill } from '../index.js'
import { all, connectRedis } from './support.js'

const MINUTE = 60_000
const MONDAY = 1_767_571_200_000
const MARKET = `0x${'ab'.repeat(20)}`
const CHAIN = 700_000 + (process.pid % 1000) * 100
const TAG = `{${CHAIN}}`

/** @param {number} minute @param {string} c @param {string} [pc] */
const candle = (minute, c, pc) => ({
  t: MONDAY + minute * MINUTE, o: c, h: c, l: c, c, ...(pc ? { pc } : {}),
  v: '1', q: c, V: '1', Q: c, n: 1, N: 1, f: '1-0', L: '1-0',
})
const STORED = [candle(0, '2'), candle(1, '10', '2'), candle(5, '9', '10')]

/** @type {any} */
let redis
/** @type {Reader} */
let reader

before(async () => {
  redis = await connectRedis()
  reader = new Reader(redis, { chainId: CHAIN })
  await redis.hSet(`head:${TAG}`, {
    number: '7', hash: '0x7', timestamp: `${MONDAY}`, asOf: `${MONDAY + 7 * MINUTE + 1}`,
    gen: '1', epoch: '5', seq: '9', chainId: `${CHAIN}`, schema: '1',
  })
  await redis.zAdd(`candles:${TAG}:${MARKET}:1m`, STORED.map((c) => ({ score: c.t, value: JSON.stringify(c) })))
  await redis.zAdd(`markets:${TAG}`, { score: MONDAY, value: MARKET })
  await redis.hSet(`market:${TAG}:${MARKET}`, { symbol: 'TEST', createdAt: `${MONDAY}`, quoteDecimals: '18' })
  await redis.hSet(`stats:${TAG}:${MARKET}`, { lastPrice: '9', count: '3' })
  await redis.rPush(`trades:${TAG}:${MARKET}`, ['{"id":"2-0"}', '{"id":"1-0"}'])
})

after(async () => {
  const keys = await redis.keys(`*${TAG}*`)
  await redis.unlink(keys)
  redis.destroy()
})

/** @param {{t: number}[]} candles */
const minutes = (candles) => candles.map(({ t }) => (t - MONDAY) / MINUTE)

test('what is stored comes back as it is', async () => {
  assert.deepEqual(await reader.candles(MARKET, '1m'), STORED)
  assert.deepEqual(await reader.trades(MARKET, 1), [{ id: '2-0' }])
  assert.deepEqual(await reader.market(MARKET.toUpperCase().replace('0X', '0x')), {
    market: MARKET,
    record: { symbol: 'TEST', createdAt: MONDAY, quoteDecimals: 18 },
    stats: { lastPrice: '9', count: 3 },
  })
  assert.deepEqual(await reader.head(), {
    number: 7, hash: '0x7', timestamp: MONDAY, asOf: MONDAY + 7 * MINUTE + 1, epoch: 5, seq: 9, chainId: CHAIN,
  })
})

test('what is unknown is nothing', async () => {
  const empty = new Reader(redis, { chainId: CHAIN + 1 })
  assert.equal(await empty.head(), null)
  assert.equal(await reader.market('0x0'), null)
  assert.equal(await reader.stats('0x0'), null)
  assert.deepEqual(await reader.candles('0x0', '1m'), [])
  assert.deepEqual(await reader.candles('0x0', '1m', { fill: true }), [])
  assert.deepEqual(await empty.candles(MARKET, '1m', { fill: true }), [])
  assert.deepEqual(await all(empty.markets()), [])
})

test('a range is right-open; of too many, the newest, or from a start the first', async () => {
  const at = (/** @type {number} */ minute) => MONDAY + minute * MINUTE
  assert.deepEqual(minutes(await reader.candles(MARKET, '1m', { limit: 2 })), [1, 5])
  assert.deepEqual(minutes(await reader.candles(MARKET, '1m', { limit: 2, start: at(0) })), [0, 1])
  assert.deepEqual(minutes(await reader.candles(MARKET, '1m', { start: at(1), end: at(5) })), [1])
  assert.deepEqual(minutes(await reader.candles(MARKET, '1m', { end: at(5), limit: 1 })), [1])
})

test('gaps are filled from the first trade to the head', async () => {
  const filled = await reader.candles(MARKET, '1m', { fill: true })
  assert.deepEqual(minutes(filled), [0, 1, 2, 3, 4, 5, 6, 7])
  assert.deepEqual(filled.map(({ c }) => c), ['2', '10', '10', '10', '10', '9', '9', '9'])
  assert.deepEqual(filled.filter(({ n }) => n), STORED)
})

test('a filled series begins with its oldest candle, whatever its previous close', () => {
  assert.deepEqual(minutes(fill([STORED[1]], MINUTE, MONDAY, MONDAY + 2 * MINUTE)), [1, 2])
})

test('candles that open at the previous close join', async () => {
  const joined = await reader.candles(MARKET, '1m', { opening: 'previous' })
  assert.deepEqual(joined.map(({ o, h, l }) => [o, h, l]), [['2', '2', '2'], ['2', '10', '2'], ['10', '10', '9']])
  assert.equal(continuous(STORED[0]), STORED[0])
})

test('decimals are compared as numbers, however many digits they have', () => {
  const ascending = ['0', '0.000000000000000000000001', '0.1', '0.11', '0.2', '1', '1.5', '9', '10', '10.01', '99999999999999999999', '99999999999999999999.1']
  for (const [at, one] of ascending.entries()) {
    for (const [beside, other] of ascending.entries()) {
      assert.equal(Math.sign(compare(one, other)), Math.sign(at - beside), `${one} ${other}`)
    }
  }
})

test('more than the bounds, or nonsense, is refused', async () => {
  for (const limit of [0, -1, 1.5, NaN, LIMITS.candlesMax + 1]) {
    await assert.rejects(reader.candles(MARKET, '1m', { limit }), RangeError)
    await assert.rejects(reader.trades(MARKET, limit), RangeError)
  }
  for (const interval of ['7m', '2w', '', 'm', '1M']) {
    await assert.rejects(reader.candles(MARKET, interval, { fill: true }), RangeError)
  }
})
