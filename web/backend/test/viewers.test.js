// @ts-check
/** Viewers that ask too much, read too slowly or send nonsense: real servers, sockets and Redis (TEST_REDIS_URL). */

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { request } from 'node:http'
import { connect as connectTcp } from 'node:net'
import { test } from 'node:test'
import { WebSocket } from 'ws'
import {
  Envelopes, MARKET, TOKEN, connect, connectListener, connectViewer, eventually, send, startBackend,
  startWithHistory, trade,
} from './helpers.js'

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
