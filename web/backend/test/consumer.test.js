// @ts-check
/** The consumer alone, on a hand-written namespace. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { attachConsumer, dropAbove, tokenMatches } from '../src/consumer.js'
import { Envelopes, MARKET, candle, trade } from './helpers.js'

const CHAIN = 31337
const STREAM = '31337'

/** As much of a Socket.IO namespace as the consumer uses. */
class FakeNamespace {
  /** @type {any} */ guard
  /** @type {any} */ onConnection
  /** @param {any} guard */
  use(guard) { this.guard = guard }
  /** @param {string} _event @param {any} handler */
  on(_event, handler) { this.onConnection = handler }

  /** @param {unknown} token @returns {Error | undefined} */
  admit(token) {
    /** @type {Error | undefined} */
    let refusal
    this.guard({ handshake: { auth: { token }, address: 'test' } }, (/** @type {any} */ error) => { refusal = error })
    return refusal
  }

  /** Connects a listener and returns how it sends. */
  listener() {
    /** @type {any} */ let any
    /** @type {any} */ let gone
    this.onConnection({ id: 'l', onAny: (/** @type {any} */ f) => { any = f }, on: (/** @type {string} */ _e, /** @type {any} */ f) => { gone = f } })
    return {
      /** @param {string} event @param {unknown} payload @returns {Promise<any>} */
      send: (event, payload) => new Promise((resolve) => any(event, payload, resolve)),
      leave: () => gone('gone'),
    }
  }
}

/** @param {import('../src/consumer.js').Handlers} handlers @param {object} [more] */
function setUp(handlers = {}, more = {}) {
  const namespace = new FakeNamespace()
  /** @type {string[]} */
  const resyncs = []
  /** @type {string[]} */
  const seen = []
  const consumer = attachConsumer(/** @type {any} */ (namespace), {
    token: 'secret',
    streams: [STREAM],
    handlers: {
      trades: (items) => { seen.push(...items.map(({ id }) => id)) },
      resync: ([{ reason }]) => { resyncs.push(reason) },
      ...handlers,
    },
    ...more,
  })
  return { namespace, consumer, resyncs, seen, ...namespace.listener(), out: new Envelopes(CHAIN) }
}

test('an empty token is refused when attaching', () => {
  assert.throws(() => attachConsumer(/** @type {any} */ (new FakeNamespace()), { token: '', streams: [STREAM], handlers: {} }), /token/)
})

test('only the exact token is admitted', () => {
  const { namespace } = setUp()
  assert.equal(namespace.admit('secret'), undefined)
  for (const wrong of ['Secret', 'secret ', '', undefined, null, 1, {}, ['secret']]) {
    assert.match(String(namespace.admit(wrong)), /unauthorized/)
  }
  assert.equal(tokenMatches('ä', 'ä'), true)
})

test('a message is acknowledged only after its handler has finished', async () => {
  /** @type {(value?: unknown) => void} */ let finish = () => {}
  const gate = new Promise((resolve) => { finish = resolve })
  const { send, out } = setUp({ trades: () => gate })
  let acked = false
  const ack = send('trade_update', out.next([trade(1)])).then((answer) => { acked = true; return answer })
  await new Promise(setImmediate)
  assert.equal(acked, false)
  finish()
  assert.deepEqual(await ack, { ok: true })
})

test('a message that was seen is acknowledged and dropped', async () => {
  const { send, out, seen, consumer } = setUp()
  const payload = out.next([trade(1), trade(2)])
  assert.deepEqual(await send('trade_update', payload), { ok: true })
  assert.deepEqual(await send('trade_update', payload), { ok: true })
  assert.deepEqual(seen, ['1-0', '2-0'])
  assert.equal(consumer.status().counts.duplicates, 1)
})

test('a message that covers old and new rows is handled and marked', async () => {
  /** @type {boolean[]} */ const overlaps = []
  const { send, out, resyncs } = setUp({ trades: (_items, ctx) => { overlaps.push(ctx.overlap) } })
  await send('trade_update', out.next([trade(1), trade(2)]))
  await send('trade_update', { ...out.next([trade(2), trade(3)]), first: 2, seq: 3 })
  assert.deepEqual(overlaps, [false, true])
  assert.deepEqual(resyncs, ['start'])
})

test('without memory, the first message may start anywhere, after reading Redis', async () => {
  const { send, out, seen, resyncs, consumer } = setUp()
  out.seq = 499
  assert.deepEqual(await send('trade_update', out.next([trade(1)])), { ok: true })
  assert.deepEqual(resyncs, ['start'])
  assert.deepEqual(seen, ['1-0'])
  assert.deepEqual(consumer.position(STREAM), { epoch: 1, seq: 500 })
})

test('a gap reads Redis before the message is handled', async () => {
  /** @type {string[]} */ const order = []
  const { send, out, consumer } = setUp({ trades: ([{ id }]) => { order.push(id) }, resync: ([{ reason }]) => { order.push(reason) } })
  await send('trade_update', out.next([trade(1)]))
  out.seq += 3
  assert.deepEqual(await send('trade_update', out.next([trade(5)])), { ok: true })
  assert.deepEqual(order, ['start', '1-0', 'gap', '5-0'])
  assert.equal(consumer.status().counts.gaps, 1)
})

test('a gap is not passed while Redis cannot be read', async () => {
  let broken = false
  const { send, out, seen, consumer } = setUp({ resync: () => { if (broken) throw new Error('redis away') } })
  await send('trade_update', out.next([trade(1)]))
  broken = true
  out.seq += 1
  const late = out.next([trade(3)])
  assert.equal((await send('trade_update', late)).ok, false)
  assert.deepEqual(consumer.position(STREAM), { epoch: 1, seq: 1 })
  broken = false
  assert.deepEqual(await send('trade_update', late), { ok: true })
  assert.deepEqual(seen, ['1-0', '3-0'])
})

test('a new epoch reads Redis, whatever its numbers, and an old one is dropped', async () => {
  const { send, out, seen, resyncs } = setUp()
  await send('trade_update', out.next([trade(1)]))
  const next = new Envelopes(CHAIN, 2)
  await send('trade_update', next.next([trade(2)]))
  assert.deepEqual(await send('trade_update', out.next([trade(9)])), { ok: true })
  assert.deepEqual(seen, ['1-0', '2-0'])
  assert.deepEqual(resyncs, ['start', 'epoch'])
})

test('a handler that throws is told to the listener, and the message comes again', async () => {
  let broken = true
  const { send, out, consumer } = setUp({ trades: () => { if (broken) throw new Error('disk full') } })
  const payload = out.next([trade(1)])
  assert.deepEqual(await send('trade_update', payload), { ok: false, error: 'disk full' })
  assert.deepEqual(consumer.position(STREAM), { epoch: 0, seq: 0 })
  broken = false
  assert.deepEqual(await send('trade_update', payload), { ok: true })
  assert.deepEqual(consumer.position(STREAM), { epoch: 1, seq: 1 })
})

test('messages behind a failed one wait for it, so that none is skipped', async () => {
  let broken = true
  /** @type {string[]} */ const seen = []
  const { send, out, resyncs } = setUp({ trades: ([{ id }]) => { if (broken) throw new Error('no'); seen.push(id) } })
  const one = out.next([trade(1)])
  const two = out.next([trade(2)])
  const answers = await Promise.all([send('trade_update', one), send('trade_update', two)])
  assert.deepEqual(answers.map(({ ok }) => ok), [false, false])
  broken = false
  await send('trade_update', one)
  await send('trade_update', two)
  assert.deepEqual(seen, ['1-0', '2-0'])
  assert.deepEqual(resyncs.filter((reason) => reason === 'gap'), [])
})

test('a handler that hangs is given up', async () => {
  const { send, out } = setUp({ trades: () => new Promise(() => {}) }, { limits: { handlerTimeoutMs: 20 } })
  const answer = await send('trade_update', out.next([trade(1)]))
  assert.equal(answer.ok, false)
  assert.match(answer.error, /more than 20 ms/)
})

test('messages are handled one at a time and in order', async () => {
  let running = 0
  /** @type {number[]} */ const order = []
  const { send, out } = setUp({
    trades: async ([{ b }]) => {
      assert.equal(++running, 1)
      await new Promise((resolve) => setTimeout(resolve, b === 1 ? 10 : 0))
      order.push(b)
      running -= 1
    },
  })
  await Promise.all([1, 2, 3].map((b) => send('trade_update', out.next([trade(b)]))))
  assert.deepEqual(order, [1, 2, 3])
})

test('too many waiting messages are refused, not kept', async () => {
  const { send, out } = setUp({ trades: () => new Promise(() => {}) }, { limits: { queuedMessagesMax: 2, handlerTimeoutMs: 50 } })
  const answers = await Promise.all([1, 2, 3].map((b) => send('trade_update', out.next([trade(b)]))))
  assert.match(answers[2].error, /busy/)
})

test('two listeners with the same rows count once', async () => {
  const { namespace, send, out, seen, leave, consumer } = setUp()
  const second = namespace.listener()
  assert.equal(consumer.status().listeners, 2)
  const payload = out.next([trade(1)])
  assert.deepEqual(await Promise.all([send('trade_update', payload), second.send('trade_update', payload)]), [{ ok: true }, { ok: true }])
  assert.deepEqual(seen, ['1-0'])
  leave()
  assert.equal(consumer.status().listeners, 1)
})

test('a reorg reaches its handler, and trades above the ancestor are dropped', async () => {
  /** @type {any[]} */ const reorgs = []
  const { send, out } = setUp({ reorg: (items) => { reorgs.push(...items) } })
  const reorg = { ancestor: { number: 5, hash: '0x5' }, depth: 2, orphaned: ['0x6', '0x7'], markets: [MARKET], from: 6000 }
  assert.deepEqual(await send('reorg', out.next([reorg])), { ok: true })
  assert.deepEqual(reorgs, [reorg])
  assert.deepEqual(dropAbove([trade(7), trade(6), trade(5)], 5).map(({ b }) => b), [5])
})

test('a deleted candle is passed on as deleted', async () => {
  /** @type {any[]} */ const candles = []
  const { send, out } = setUp({ candles: (items) => { candles.push(...items) } })
  const gone = { s: MARKET, i: '1m', t: 60_000, deleted: true }
  assert.deepEqual(await send('chart_data', out.next([candle(0, { s: MARKET, i: '1m' }), gone])), { ok: true })
  assert.deepEqual(candles[1], gone)
})

test('resync from the listener runs the hook once and ends a wait', async () => {
  let broken = true
  const { send, out, resyncs, consumer } = setUp({ trades: () => { if (broken) throw new Error('no') } })
  await send('trade_update', out.next([trade(1)]))
  out.seq = 900
  assert.deepEqual(await send('resync', out.next([{ reason: 'outbox trimmed' }])), { ok: true })
  broken = false
  assert.deepEqual(await send('trade_update', out.next([trade(2)])), { ok: true })
  assert.deepEqual(resyncs, ['start', 'outbox trimmed'])
  assert.deepEqual(consumer.position(STREAM), { epoch: 1, seq: 902 })
})

test('a position that was stored is where the consumer goes on', async () => {
  const { send, out, seen, resyncs } = setUp({}, { resumeFrom: { [STREAM]: { epoch: 1, seq: 2 } } })
  await send('trade_update', out.next([trade(1), trade(2)]))
  await send('trade_update', out.next([trade(3)]))
  assert.deepEqual(seen, ['3-0'])
  assert.deepEqual(resyncs, ['start'])
})

test('an event of a later contract is acknowledged and keeps the numbers gapless', async () => {
  const { send, out, resyncs } = setUp()
  await send('trade_update', out.next([trade(1)]))
  assert.deepEqual(await send('something_new', out.next([{ any: 1 }])), { ok: true })
  await send('trade_update', out.next([trade(2)]))
  assert.deepEqual(resyncs, ['start'])
})

test('a malformed payload is refused with its reason and changes nothing', async () => {
  const { send, out, seen, consumer } = setUp()
  const good = out.next([trade(1)])
  /** @type {[string, unknown, RegExp][]} */
  const cases = [
    ['trade_update', undefined, /not an object/],
    ['trade_update', [good], /not an object/],
    ['trade_update', { ...good, v: 2 }, /version 2/],
    ['trade_update', { ...good, stream: '1' }, /not served/],
    ['trade_update', { ...good, stream: undefined }, /stream is missing/],
    ['trade_update', { ...good, epoch: -1 }, /whole numbers/],
    ['trade_update', { ...good, seq: 1.5 }, /whole numbers/],
    ['trade_update', { ...good, first: 2, seq: 1 }, /after seq/],
    ['trade_update', { ...good, items: {} }, /not an array/],
    ['trade_update', { ...good, items: [null] }, /item 0/],
    ['trade_update', { ...good, items: [trade(1), trade(2, { side: 'hold' })] }, /item 1/],
    ['trade_update', { ...good, items: [trade(1, { p: 1.5 })] }, /item 0/],
    ['trade_update', { ...good, items: [trade(1, { p: '1e-9' })] }, /item 0/],
    ['trade_update', { ...good, items: [trade(1, { s: 'a:b' })] }, /item 0/],
    ['chart_data', { ...good, items: [candle(0, { s: MARKET, i: 'soon' })] }, /item 0/],
    ['chart_data', { ...good, items: [candle(0, { s: MARKET, i: '1m', h: undefined })] }, /item 0/],
    ['market_data', { ...good, items: [{ s: MARKET, lastPrice: 'x' }] }, /item 0/],
    ['market_created', { ...good, items: [{}] }, /item 0/],
    ['candles_closed', { ...good, items: [{ i: '1m' }] }, /item 0/],
    ['reorg', { ...good, items: [{ ancestor: {}, markets: [] }] }, /item 0/],
    ['reorg', { ...good, items: [{ ancestor: { number: 1 }, markets: [{}] }] }, /item 0/],
    ['resync', { ...good, items: [{ reason: 1 }] }, /item 0/],
  ]
  for (const [event, payload, reason] of cases) {
    const answer = await send(event, payload)
    assert.equal(answer.ok, false, JSON.stringify(payload))
    assert.match(answer.error, reason)
  }
  assert.deepEqual(seen, [])
  assert.equal(consumer.status().counts.refused, cases.length)
  assert.deepEqual(await send('trade_update', good), { ok: true })
})
