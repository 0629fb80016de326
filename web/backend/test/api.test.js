// @ts-check
/** What the server answers over HTTP: real server, real Redis (TEST_REDIS_URL). */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  Envelopes, MARKET, OTHER, connectListener, eventually, getJson, send, startBackend, startWithHistory,
  stats,
} from './helpers.js'

test('the API serves what Redis holds', async (t) => {
  const { url, chain } = await startWithHistory(t)
  assert.deepEqual((await getJson(url, '/api/config')).body.intervals, ['1m', '5m', '15m', '1h', '4h', '1d'])

  const byAge = (await getJson(url, '/api/markets')).body
  assert.deepEqual(byAge.items.map((/** @type {any} */ m) => m.symbol), ['BBB', 'AAA'])
  assert.equal(byAge.total, 2)
  assert.equal(byAge.items[1].createdAt, 1000)
  assert.equal(byAge.items[1].stats.count, 9)
  assert.equal(byAge.items[1].stats.quoteVolume, '900')
  const page = (await getJson(url, '/api/markets?limit=1&offset=1')).body
  assert.deepEqual(page.items.map((/** @type {any} */ m) => m.symbol), ['AAA'])
  for (const [sort, first] of [['volume', 'AAA'], ['gainers', 'AAA'], ['losers', 'BBB'], ['trades', 'AAA']]) {
    assert.equal((await getJson(url, `/api/markets?sort=${sort}`)).body.items[0].symbol, first, sort)
  }
  assert.deepEqual((await getJson(url, '/api/markets?q=bb')).body.items.map((/** @type {any} */ m) => m.s), [OTHER])

  assert.equal((await getJson(url, `/api/markets/${MARKET.toUpperCase().replace('0X', '0x')}`)).body.symbol, 'AAA')
  const newest = (await getJson(url, `/api/markets/${MARKET}/candles?interval=1m&limit=3`)).body.items
  assert.deepEqual(newest.map((/** @type {any} */ c) => c.t), [1_020_000, 1_080_000, 1_140_000])
  const older = (await getJson(url, `/api/markets/${MARKET}/candles?interval=1m&limit=2&before=1020000`)).body.items
  assert.deepEqual(older.map((/** @type {any} */ c) => c.t), [900_000, 960_000])
  const trades = (await getJson(url, `/api/markets/${MARKET}/trades?limit=2`)).body.items
  assert.deepEqual(trades.map((/** @type {any} */ x) => x.id), ['5-0', '4-0'])

  const { status, body } = await getJson(url, '/health')
  assert.deepEqual([status, body.status, body.redis, body.listeners, body.head.number], [200, 'ok', 'up', 0, 5])
  assert.equal((await getJson(url, '/debug/state')).body.stream, String(chain))
})

test('a list of markets says up to where it holds, even when it was read for someone else', async (t) => {
  const { url, chain } = await startWithHistory(t)
  const listener = await connectListener(t, url)
  const envelopes = new Envelopes(chain)
  /** @param {string} sort */
  const seqOf = async (sort) => (await getJson(url, `/api/markets?sort=${sort}`)).body.seq
  await send(listener, 'market_data', envelopes.next([{ s: MARKET, ...stats() }]))
  assert.deepEqual([await seqOf('volume'), await seqOf('newest')], [1, 1])
  await send(listener, 'market_data', envelopes.next([{ s: MARKET, ...stats() }]))
  assert.deepEqual([await seqOf('volume'), await seqOf('newest')], [1, 2], 'the shared list is older')
  await eventually('the shared list is read again', async () => (await seqOf('volume')) === 2)
})

test('the API refuses what makes no sense', async (t) => {
  const { url } = await startWithHistory(t)
  for (const [path, status] of /** @type {[string, number][]} */ ([
    ['/api/markets?sort=best', 400], ['/api/markets?limit=-1', 400], ['/api/markets?limit=0', 400],
    ['/api/markets?offset=x', 400], [`/api/markets?q=${'a'.repeat(81)}`, 400], ['/api/markets/0x1', 404],
    ['/api/markets/a:b', 400], [`/api/markets/${MARKET}/candles?interval=7m`, 400],
    [`/api/markets/${MARKET}/candles?interval=1m&before=soon`, 400], ['/api/nothing', 404], ['/nothing', 404],
  ])) {
    const answer = await getJson(url, path)
    assert.equal(answer.status, status, path)
    assert.equal(typeof answer.body.error, 'string')
  }
  const most = await getJson(url, '/api/markets?limit=100000')
  assert.equal(most.body.limit, 100)
})

test('the page and its libraries are served from here', async (t) => {
  const { url } = await startBackend(t)
  for (const [path, type] of [['/', 'text/html'], ['/js/main.js', 'text/javascript'], ['/styles.css', 'text/css'],
    ['/vendor/lightweight-charts.mjs', 'text/javascript'], ['/vendor/socket.io.mjs', 'text/javascript']]) {
    const response = await fetch(url + path)
    assert.equal(response.status, 200, path)
    assert.match(response.headers.get('content-type') ?? '', new RegExp(type))
    assert.match(response.headers.get('content-security-policy') ?? '', /default-src 'self'/)
    await response.arrayBuffer()
  }
})

test('debug state is not served unless asked for', async (t) => {
  const { url } = await startBackend(t, { ENABLE_DEBUG: '' })
  assert.equal((await getJson(url, '/debug/state')).status, 404)
})
