// @ts-check
/** From the listener's messages to viewers: real servers, sockets and Redis (TEST_REDIS_URL). */

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { History } from '../src/history.js'
import {
  MARKET, OTHER, candle, connect, connectListener, connectViewer, eventually, getJson, record, send,
  startBackend, startWithHistory, stats, trade,
} from './helpers.js'

for (const [name, auth] of /** @type {[string, any][]} */ ([['no', undefined], ['a wrong', { token: 'guess' }], ['a typed', { token: { $ne: 1 } }]])) {
  test(`a listener with ${name} token is refused`, async (t) => {
    const { url, consumer } = await startBackend(t)
    const socket = connect(t, url, { auth, reconnection: false })
    const [error] = await once(/** @type {any} */ (socket), 'connect_error')
    assert.equal(error.message, 'unauthorized')
    assert.equal(consumer.status().listeners, 0)
    assert.equal(consumer.status().counts.unauthorized, 1)
  })
}

test('what the listener sends is held, counted and broadcast', async (t) => {
  const { url, out, keys, redis } = await startWithHistory(t)
  const viewer = await connectViewer(t, url)
  const listener = await connectListener(t, url)
  const rooms = [{ topic: 'candles', market: MARKET, interval: '1m' }, { topic: 'trades', market: MARKET },
    { topic: 'stats', market: MARKET }, { topic: 'markets' }]
  const [candles, trades, market, list] = await Promise.all(rooms.map((room) => send(viewer, 'subscribe', room)))
  assert.equal(candles.items.length, 20)
  assert.deepEqual(trades.items.map((/** @type {any} */ x) => x.id), ['5-0', '4-0', '3-0', '2-0', '1-0'])
  assert.equal(market.market.stats.quoteVolume, '900')
  assert.equal(list.ok, true)

  /** @type {Record<string, any>} */
  const got = {}
  viewer.onAny((event, payload) => { got[event] = payload })
  const fresh = candle(1_200_000, { s: MARKET, i: '1m', T: 1_259_999 })
  assert.deepEqual(await send(listener, 'trade_update', out.next([trade(6), trade(6, { s: OTHER })])), { ok: true })
  assert.deepEqual(await send(listener, 'chart_data', out.next([fresh, candle(0, { s: MARKET, i: '5m' })])), { ok: true })
  assert.deepEqual(await send(listener, 'market_data', out.next([{ s: MARKET, ...stats({ count: 10 }) }, { s: OTHER, ...stats() }])), { ok: true })
  assert.deepEqual(await send(listener, 'market_created', out.next([{ s: '0xnew', ...record(3000) }])), { ok: true })
  assert.deepEqual(await send(listener, 'market_graduated', out.next([{ s: MARKET, ...record(1000, { status: 'graduated', successor: '0xpool' }) }])), { ok: true })
  assert.deepEqual(await send(listener, 'candles_closed', out.next([{ i: '1m', T: 1_199_999 }])), { ok: true })
  const alert = { id: 'r1-6-0', rule: 'r1', kind: 'trade_size', s: MARKET, b: 6, bh: '0x6', t: 6_000, trade: '6-0', value: '5', threshold: '1' }
  const undone = { ...alert, retracted: true }
  assert.deepEqual(await send(listener, 'alert', out.next([alert, { ...alert, s: OTHER }, undone])), { ok: true })
  await eventually('list figures are flushed', () => got.markets)

  assert.deepEqual(got.trades, { s: MARKET, epoch: 1, seq: 2, items: [trade(6)] })
  assert.deepEqual(got.candles, { s: MARKET, i: '1m', epoch: 1, seq: 4, items: [fresh] })
  assert.equal(got.stats.items[0].count, 10)
  assert.deepEqual(got.markets.items.map((/** @type {any} */ x) => x.s), [MARKET, OTHER])
  assert.equal(got.market_created.items[0].s, '0xnew')
  assert.equal(got.market_graduated.items[0].status, 'graduated')
  assert.deepEqual(got.candles_closed.items, [{ i: '1m', T: 1_199_999 }])
  assert.deepEqual(got.alerts, { s: MARKET, epoch: 1, seq: out.seq, items: [alert, undone] })

  const { body } = await getJson(url, '/debug/state')
  assert.deepEqual(body.lastSeen, { [out.chain]: { epoch: 1, seq: out.seq } })
  assert.deepEqual([body.counts.received, body.counts.acksOk, body.counts.duplicates], [7, 7, 0])
  const { s: _s, i: _i, T: _T, ...stored } = fresh
  assert.deepEqual(body.state.markets[MARKET].candles['1m'], stored)
  assert.deepEqual(body.state.markets[MARKET].trades.map((/** @type {any} */ x) => x.id), ['6-0', '5-0', '4-0', '3-0', '2-0', '1-0'])
  assert.equal(body.state.markets[MARKET].market.successor, '0xpool')

  // Subscriptions end; changes for rooms that one has left do not arrive.
  await send(viewer, 'unsubscribe', rooms[1])
  delete got.trades
  await send(listener, 'trade_update', out.next([trade(7)]))
  await redis.lPush(keys.trades(MARKET), JSON.stringify(trade(7)))
  assert.equal((await send(viewer, 'subscribe', rooms[1])).items[0].id, '7-0')
  assert.equal(got.trades, undefined)
})

test('nothing falls between a snapshot and the changes after it', async (t) => {
  const { trades } = History.prototype
  // A slow answer: trades go on while the snapshot is on its way.
  t.mock.method(History.prototype, 'trades', /** @this {History} @param {string} id @param {number} limit */ async function slow(id, limit) {
    const rows = await trades.call(this, id, limit)
    await new Promise((resolve) => setTimeout(resolve, 15))
    return rows
  })
  const { url, out, redis, keys } = await startWithHistory(t)
  const listener = await connectListener(t, url)
  let going = true
  let block = 100
  const writing = (async () => {
    while (going) {
      block += 1
      const item = trade(block)
      await redis.lPush(keys.trades(MARKET), JSON.stringify(item))
      await send(listener, 'trade_update', out.next([item]))
    }
  })()
  for (let round = 0; round < 20; round += 1) {
    const viewer = await connectViewer(t, url)
    /** @type {any[]} */
    const changes = []
    viewer.on('trades', (change) => changes.push(change))
    const snapshot = await send(viewer, 'subscribe', { topic: 'trades', market: MARKET, limit: 200 })
    const seen = new Set(snapshot.items.map((/** @type {any} */ x) => x.b))
    const enough = block + 5
    await eventually('changes follow', () => changes.some((change) => change.items.at(-1).b >= enough))
    for (const change of changes) {
      const newer = change.epoch > snapshot.epoch || change.seq > snapshot.seq
      if (newer) for (const item of change.items) seen.add(item.b)
    }
    const oldest = Math.min(...[...seen].filter((b) => b > 100))
    for (let b = oldest; b <= enough; b += 1) assert.ok(seen.has(b), `round ${round}: trade of block ${b} is missing`)
    viewer.disconnect()
  }
  going = false
  await writing
})

test('a reorg drops trades and candles, reads what came before, and tells the viewers concerned', async (t) => {
  const { url, out, redis, keys, state } = await startWithHistory(t)
  const listener = await connectListener(t, url)
  const viewer = await connectViewer(t, url)
  const stranger = await connectViewer(t, url)
  await send(viewer, 'subscribe', { topic: 'trades', market: MARKET })
  await send(stranger, 'subscribe', { topic: 'trades', market: OTHER })
  /** @type {any[]} */
  const told = []
  stranger.on('reorg', () => assert.fail('told about a market it does not watch'))
  viewer.on('reorg', (reorg) => told.push(reorg))

  await send(listener, 'trade_update', out.next([trade(6), trade(7)]))
  await send(listener, 'chart_data', out.next([candle(1_200_000, { s: MARKET, i: '1m' })]))
  const reorg = { ancestor: { number: 4, hash: '0x4' }, depth: 3, orphaned: ['0x5', '0x6', '0x7'], markets: [MARKET], from: 5000 }
  await redis.lPop(keys.trades(MARKET))
  assert.deepEqual(await send(listener, 'reorg', out.next([reorg])), { ok: true })
  assert.deepEqual(await send(listener, 'chart_data', out.next([{ s: MARKET, i: '1m', t: 1_200_000, deleted: true }])), { ok: true })

  assert.deepEqual(state.get(MARKET)?.trades.map(({ b }) => b), [4, 3, 2, 1])
  assert.equal(state.get(MARKET)?.candles.get('1m')?.t, 1_140_000)
  assert.deepEqual(told, [{ s: MARKET, epoch: 1, seq: 4, ancestor: reorg.ancestor, depth: 3, from: 5000 }])
})

test('markets and graduations that a reorg undid', async (t) => {
  const { url, out, state } = await startWithHistory(t)
  const listener = await connectListener(t, url)
  await send(listener, 'market_graduated', out.next([{ s: MARKET, ...record(1000, { status: 'graduated' }) }]))
  assert.equal(state.get(MARKET)?.market?.status, 'graduated')
  await send(listener, 'market_graduated', out.next([{ s: MARKET, deleted: true }]))
  assert.equal(state.get(MARKET)?.market?.status, 'bonding')
  await send(listener, 'market_created', out.next([{ s: OTHER, deleted: true }]))
  assert.equal(state.get(OTHER), undefined)
})

test('resync and gaps read Redis again and tell every viewer', async (t) => {
  const { url, out, redis, keys, state } = await startWithHistory(t)
  const listener = await connectListener(t, url)
  const viewer = await connectViewer(t, url)
  /** @type {string[]} */
  const reasons = []
  viewer.on('resync', ({ reason }) => reasons.push(reason))
  await send(listener, 'trade_update', out.next([trade(6)]))
  await redis.hSet(keys.stats(MARKET), 'lastPrice', '42')
  await send(listener, 'resync', out.next([{ reason: 'outbox trimmed' }]))
  assert.equal(state.get(MARKET)?.stats?.lastPrice, '42')
  await redis.hSet(keys.stats(MARKET), 'lastPrice', '43')
  out.seq += 10
  await send(listener, 'trade_update', out.next([trade(7)]))
  assert.equal(state.get(MARKET)?.stats?.lastPrice, '43')
  await eventually('viewers are told', () => reasons.length === 2)
  assert.deepEqual(reasons, ['outbox trimmed', 'gap'])
})

test('two listeners may be connected; rows count once', async (t) => {
  const { url, out, state } = await startWithHistory(t)
  const [a, b] = [await connectListener(t, url), await connectListener(t, url)]
  const payload = out.next([trade(6)])
  await Promise.all([send(a, 'trade_update', payload), send(b, 'trade_update', payload)])
  const { body } = await getJson(url, '/debug/state')
  assert.deepEqual([body.listeners, body.counts.applied, body.counts.duplicates], [2, 1, 1])
  assert.equal(state.get(MARKET)?.trades.filter(({ b: block }) => block === 6).length, 1)
})

test('viewers learn whether a listener feeds the server', async (t) => {
  const { url } = await startBackend(t)
  /** @type {string[]} */
  const states = []
  const viewer = connect(t, `${url}/charts`)
  viewer.on('status', ({ feed }) => states.push(feed))
  await eventually('first state', () => states.length === 1)
  const listener = await connectListener(t, url)
  await eventually('live', () => states.length === 2)
  listener.disconnect()
  await eventually('waiting', () => states.length === 3)
  assert.deepEqual(states, ['waiting', 'live', 'waiting'])
})
