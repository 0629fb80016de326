// @ts-check
/** Real servers, real sockets, a real Redis (TEST_REDIS_URL). */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { request } from 'node:http'
import { connect as connectTcp, createServer as createTcpServer } from 'node:net'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { WebSocket } from 'ws'
import { History, keysOf } from '../src/history.js'
import {
  Envelopes, MARKET, OTHER, TOKEN, asHash, candle, connect, connectListener, connectRedis, connectViewer,
  eventually, freshChain, getJson, record, redisUrl, send, startBackend, stats, trade,
} from './helpers.js'

/** @typedef {import('node:test').TestContext} T */

/** A server whose chain already has a market with some history. @param {T} t @param {Record<string, string>} [env] */
async function startWithHistory(t, env = {}) {
  const redis = await connectRedis(t)
  const chain = freshChain()
  const keys = keysOf(String(chain))
  await redis.zAdd(keys.markets, [{ score: 1000, value: MARKET }, { score: 2000, value: OTHER }])
  await redis.hSet(keys.market(MARKET), asHash(record(1000, { symbol: 'AAA' })))
  await redis.hSet(keys.market(OTHER), asHash(record(2000, { symbol: 'BBB', status: 'graduated' })))
  await redis.hSet(keys.stats(MARKET), asHash(stats({ quoteVolume: '900', count: 9 })))
  await redis.hSet(keys.stats(OTHER), asHash(stats({ quoteVolume: '1', priceChangePercent: '-20' })))
  for (let i = 0; i < 20; i += 1) {
    const t0 = i * 60_000
    await redis.zAdd(keys.candles(MARKET, '1m'), { score: t0, value: JSON.stringify(candle(t0, { c: String(i + 1) })) })
  }
  for (let b = 1; b <= 5; b += 1) await redis.lPush(keys.trades(MARKET), JSON.stringify(trade(b)))
  await redis.hSet(keys.head, asHash({ number: 5, hash: '0x5', timestamp: Date.now(), epoch: 1, seq: 0 }))
  const backend = await startBackend(t, { CHAIN_ID: String(chain), ...env })
  await eventually('state is read', () => backend.state.size === 2)
  return { ...backend, redis, keys, out: new Envelopes(chain) }
}

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
  assert.deepEqual(await send(listener, 'alert', out.next([{ kind: 'test' }])), { ok: true })
  await eventually('list figures are flushed', () => got.markets)

  assert.deepEqual(got.trades, { s: MARKET, epoch: 1, seq: 2, items: [trade(6)] })
  assert.deepEqual(got.candles, { s: MARKET, i: '1m', epoch: 1, seq: 4, items: [fresh] })
  assert.equal(got.stats.items[0].count, 10)
  assert.deepEqual(got.markets.items.map((/** @type {any} */ x) => x.s), [MARKET, OTHER])
  assert.equal(got.market_created.items[0].s, '0xnew')
  assert.equal(got.market_graduated.items[0].status, 'graduated')
  assert.deepEqual(got.candles_closed.items, [{ i: '1m', T: 1_199_999 }])

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

test('a viewer cannot publish', async (t) => {
  const { url, chain, consumer, state } = await startWithHistory(t)
  const viewer = await connectViewer(t, url, { auth: { token: TOKEN } }) // not even with the token
  const out = new Envelopes(chain)
  for (const event of ['trade_update', 'chart_data', 'resync', 'reorg', 'constructor', '__proto__']) {
    assert.deepEqual(await send(viewer, event, out.next([trade(99)])), { ok: false, error: 'unknown request' })
  }
  assert.equal(consumer.status().counts.received, 0)
  assert.ok(state.get(MARKET)?.trades.every(({ b }) => b < 99))
})

test('bad requests of a viewer are refused, too many end the connection', async (t) => {
  const { url, viewers } = await startWithHistory(t)
  const viewer = await connectViewer(t, url, { reconnection: false })
  for (const bad of [undefined, null, 7, 'markets', {}, { topic: 'all' }, { topic: 'trades' }, { topic: 'trades', market: 'a:b' },
    { topic: 'trades', market: ['x'] }, { topic: 'candles', market: MARKET, interval: '7m' }, { topic: 'trades', market: MARKET, limit: -1 }]) {
    assert.equal((await send(viewer, 'subscribe', bad)).ok, false, JSON.stringify(bad))
  }
  const answers = await Promise.all(Array.from({ length: 17 }, (_, i) =>
    send(viewer, 'subscribe', { topic: 'stats', market: `0x${i}` })))
  assert.equal(answers.filter(({ ok }) => ok).length, 16)
  assert.match(answers[16].error, /16 subscriptions/)
  for (let i = 0; i < 400; i += 1) viewer.emit('subscribe', { topic: 'markets' })
  const [reason] = await once(/** @type {any} */ (viewer), 'disconnect')
  assert.equal(reason, 'io server disconnect')
  await eventually('it is forgotten', () => viewers.status().viewers === 0)
})

test('no more viewers than allowed', async (t) => {
  const { url } = await startBackend(t, { MAX_VIEWERS: '1' })
  await connectViewer(t, url)
  const second = connect(t, `${url}/charts`, { reconnection: false })
  const [error] = await once(/** @type {any} */ (second), 'connect_error')
  assert.equal(error.message, 'full')
})

test('an oversized message closes its link and nothing else', async (t) => {
  const { url, out, consumer } = await startWithHistory(t)
  const viewer = await connectViewer(t, url, { reconnection: false })
  viewer.emit('subscribe', { topic: 'markets', junk: 'x'.repeat(1_100_000) })
  await once(/** @type {any} */ (viewer), 'disconnect')
  const listener = await connectListener(t, url)
  listener.emit('trade_update', out.next([trade(6, { junk: 'x'.repeat(1_100_000) })]))
  await once(/** @type {any} */ (listener), 'disconnect')
  await once(/** @type {any} */ (listener), 'connect')
  assert.equal(consumer.status().counts.received, 0)
  out.seq = 0
  assert.deepEqual(await send(listener, 'trade_update', out.next([trade(6, { junk: 'x'.repeat(900_000) })])), { ok: true })
})

test('malformed packets do not end the server', async (t) => {
  const { url, port } = await startBackend(t)
  for (const packet of ['4', '42["', '42', '451-["x",{"_placeholder":true,"num":9}]', '40{"token":', '49999999999999["x"]', '\u0000\u0001', '42["__proto__",{}]']) {
    const ws = new WebSocket(`${url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`)
    ws.on('error', () => {})
    await once(ws, 'open')
    ws.send('40/charts,')
    ws.send(packet)
    await new Promise((resolve) => setTimeout(resolve, 20))
    ws.terminate()
  }
  const raw = connectTcp(port, '127.0.0.1')
  raw.on('error', () => {}).resume()
  raw.write('GET /\0 NONSENSE\r\n\r\n')
  await once(raw, 'close')
  assert.equal((await fetch(`${url}/api/config`)).status, 200)
})

test('a page of another site is turned away unless it is on the list', async (t) => {
  const { url, port } = await startBackend(t, { CORS_ORIGINS: 'https://pad.example' })
  /** @param {string} origin @returns {Promise<number | undefined>} */
  const handshake = (origin) => new Promise((resolve, reject) => {
    request({ port, path: '/socket.io/?EIO=4&transport=polling', headers: { origin } }, (response) => {
      response.resume()
      resolve(response.statusCode)
    }).on('error', reject).end()
  })
  assert.equal(await handshake('https://evil.example'), 403)
  assert.equal(await handshake('null'), 403)
  assert.equal(await handshake('https://pad.example'), 200)
  assert.equal(await handshake(`http://localhost:${port}`), 200, 'the host of the request is its own origin')
  const read = async (/** @type {string} */ origin) =>
    (await fetch(`${url}/api/config`, { headers: { origin } })).headers.get('access-control-allow-origin')
  assert.equal(await read('https://pad.example'), 'https://pad.example')
  assert.equal(await read('https://evil.example'), null)
})

test('a viewer that does not read is put off and then dropped; others are not held up', async (t) => {
  const { url, out, viewers, redis, keys } = await startWithHistory(t)
  const listener = await connectListener(t, url)
  const slow = await connectViewer(t, url, { reconnection: false })
  const quick = await connectViewer(t, url)
  const room = { topic: 'trades', market: MARKET }
  await send(slow, 'subscribe', room)
  await send(quick, 'subscribe', room)
  let last = 0
  quick.on('trades', ({ items }) => { last = items.at(-1).b })
  const wire = /** @type {any} */ (slow).io.engine.transport.ws._socket
  wire.pause()
  const junk = 'x'.repeat(400_000)
  for (let b = 10; b < 90; b += 1) {
    assert.deepEqual(await send(listener, 'trade_update', out.next([trade(b, { junk })])), { ok: true })
    if (b % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 600))
  }
  await eventually('the quick one has everything', () => last === 89)
  await eventually('the slow one is put off', () => viewers.status().counts.unsubscribedSlow > 0)
  const stuck = viewers.status().counts.disconnectedSlow
  wire.resume()
  if (stuck === 0) {
    await once(/** @type {any} */ (slow), 'resync')
    await redis.lPush(keys.trades(MARKET), JSON.stringify(trade(89)))
    assert.equal((await send(slow, 'subscribe', room)).items[0].id, '89-0')
  }
})

test('Redis away: health says so, messages are refused, and all recovers', async (t) => {
  const target = new URL(redisUrl())
  /** @type {Set<import('node:net').Socket>} */
  const links = new Set()
  const door = createTcpServer((near) => {
    const far = connectTcp(Number(target.port || 6379), target.hostname)
    for (const [from, to] of [[near, far], [far, near]]) {
      links.add(from)
      from.pipe(to)
      from.on('error', () => {}).on('close', () => { links.delete(from); to.destroy() })
    }
  })
  const shut = () => { door.close(); for (const link of links) link.destroy() }
  /** @param {number} port */
  const open = async (port) => { door.listen(port, '127.0.0.1'); await once(door, 'listening') }
  t.after(shut)
  await open(0)
  const { port } = /** @type {import('node:net').AddressInfo} */ (door.address())
  shut()

  const { url, chain, state } = await startBackend(t, { REDIS_URL: `redis://127.0.0.1:${port}` })
  const out = new Envelopes(chain)
  const listener = await connectListener(t, url)
  const viewer = await connectViewer(t, url)
  const payload = out.next([trade(1)])
  const room = { topic: 'trades', market: MARKET }
  const { status, body } = await getJson(url, '/health')
  assert.deepEqual([status, body.status, body.redis], [503, 'degraded', 'down'])
  assert.equal((await getJson(url, '/api/markets')).status, 503)
  assert.equal((await send(listener, 'trade_update', payload)).ok, false)
  assert.match((await send(viewer, 'subscribe', room)).error, /try again/)

  for (const round of [1, 2]) {
    await open(port)
    await eventually(`health is good again, ${round}`, async () => (await getJson(url, '/health')).status === 200, 10_000)
    assert.deepEqual(await send(listener, 'trade_update', payload), { ok: true })
    assert.equal((await send(viewer, 'subscribe', room)).ok, true)
    shut()
    await eventually(`health is bad again, ${round}`, async () => (await getJson(url, '/health')).status === 503, 10_000)
  }
  assert.ok(state.size <= 1)
})

// ---------------------------------------------------------------- as a process

const MAIN = fileURLToPath(new URL('../src/main.js', import.meta.url))

/** @param {T} t @param {Record<string, string | undefined>} env */
function spawnMain(t, env) {
  const child = spawn(process.execPath, [MAIN], {
    env: { PATH: process.env.PATH, PORT: '0', REDIS_URL: redisUrl(), ...env }, stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.after(() => { child.kill('SIGKILL') })
  return child
}

test('without a token it refuses to start and names the variable', async (t) => {
  const child = spawnMain(t, {})
  let text = ''
  child.stderr.on('data', (data) => { text += data })
  const [code] = await once(child, 'close')
  assert.equal(code, 2)
  assert.match(text, /BACKEND_AUTH_TOKEN/)
})

test('it prints its address, survives a kill, and stops within two seconds', async (t) => {
  const chain = freshChain()
  const env = { BACKEND_AUTH_TOKEN: TOKEN, CHAIN_ID: String(chain) }
  /** @param {ReturnType<typeof spawnMain>} child */
  const address = async (child) => {
    const [line] = await once(child.stdout, 'data')
    const match = /^listening (http:\/\/127\.0\.0\.1:(\d+))\n$/.exec(String(line))
    assert.ok(match, String(line))
    return { url: match[1], port: match[2] }
  }
  const first = spawnMain(t, env)
  const { url, port } = await address(first)
  const listener = await connectListener(t, url)
  const out = new Envelopes(chain)
  const payload = out.next([trade(1)])
  assert.deepEqual(await send(listener, 'trade_update', payload), { ok: true })
  first.kill('SIGKILL')
  await once(/** @type {any} */ (listener), 'disconnect')

  const second = spawnMain(t, { ...env, PORT: port })
  second.stderr.resume()
  await address(second)
  if (!listener.connected) await once(/** @type {any} */ (listener), 'connect')
  assert.deepEqual(await send(listener, 'trade_update', payload), { ok: true }, 'sent again after the kill')
  const started = Date.now()
  second.kill('SIGTERM')
  const [code] = await once(second, 'exit')
  assert.equal(code, 0)
  assert.ok(Date.now() - started < 2_000)
})
