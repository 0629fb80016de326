// @ts-check
/** Parts of the page that need no browser: numbers, and joining snapshots with changes. */

import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import { test } from 'node:test'
import { words } from '../../chart/js/alerts.js'
import { readAddress, writeAddress } from '../../chart/js/address.js'
import { drawn, indexOf, powerFor, toBar, undrawn } from '../../chart/js/bars.js'
import { createFeed } from '../../chart/js/feed.js'
import { age, axisPrices, compact, percent, price, short } from '../../chart/js/format.js'

test('prices of every size are readable', () => {
  /** @type {[string | undefined, string][]} */
  const cases = [
    ['0.0000000015', '0.0₈15'], ['0.00000000000000000123', '0.0₁₇123'], ['0.00001', '0.0₄1'],
    ['0.00012346', '0.0001235'], ['0.5', '0.5'], ['0.99999', '1'], ['1.23456', '1.2346'],
    ['1234.5678', '1,234.57'], ['0', '0'], ['123456789012345678901234567890', '1.235e29'],
    ['-0.0000000015', '-0.0₈15'], [undefined, '–'], ['', '–'],
  ]
  for (const [exact, shown] of cases) assert.equal(price(exact), shown)
  assert.equal(price('0.0000000015', 4, true), '0.0₈1500')
  assert.equal(price('1.5', 4, true), '1.5000')
})

test('labels of an axis differ, line up and stay above zero', () => {
  /** @type {[number[], string[]][]} */
  const cases = [
    [[-0.02, 2e-17, 0.02, 0.04], ['', '0', '0.02', '0.04']],
    [[0.008, 0.01, 0.012], ['0.008', '0.010', '0.012']],
    [[9.5e-11, 1e-10, 1.05e-10], ['0.0₁₀95', '0.0₉100', '0.0₉105']],
    [[1.5e-9, 1.5001e-9, 1.5002e-9], ['0.0₈15000', '0.0₈15001', '0.0₈15002']],
    [[1000, 1250, 1500], ['1,000', '1,250', '1,500']],
    [[1.5e-9], ['0.0₈15000']],
    [[0.00001, 0.0001, 0.0012], ['0.0₄1', '0.0001', '0.0012']],
  ]
  for (const [values, labels] of cases) assert.deepEqual(axisPrices(values), labels)
})

test('amounts, changes, ages and ids are short', () => {
  assert.deepEqual(['0.031', '12.5', '1670', '4560000', '999999', '2e12', '3e20'].map(compact),
    ['0.031', '12.5', '1.67K', '4.56M', '1,000K', '2T', '3.00e20'])
  assert.deepEqual(['5.123', '-3', '0', '123456', undefined].map(percent), ['+5.12%', '-3.00%', '0.00%', '+123K%', '–'])
  assert.deepEqual([5_000, 130_000, 7_300_000, 2e8].map((ms) => age(0, ms)), ['5s', '2m', '2h', '2d'])
  assert.equal(short(`0x${'ab'.repeat(20)}`), '0xabab…abab')
})

test('an alert says what has happened, whatever its kind', () => {
  /** @type {[Record<string, any>, string][]} */
  const cases = [
    [{ kind: 'price_above', value: '0.0000000016', threshold: '0.0000000015' }, 'Price above 0.0₈15: 0.0₈16'],
    [{ kind: 'price_below', value: '1', threshold: '2' }, 'Price below 2: 1'],
    [{ kind: 'change', value: '-12.5', threshold: '-10', windowMs: 3_600_000 }, 'Price -12.50% within 1h'],
    [{ kind: 'volume_spike', value: '7', threshold: '5', windowMs: 300_000 }, 'Volume 7 times the usual within 5m'],
    [{ kind: 'trade_size', value: '12500', threshold: '10' }, 'Trade of 12.5K'],
    [{ kind: 'market_created' }, 'Market created'],
    [{ kind: 'graduated' }, 'Market graduated'],
    [{ kind: 'something_new' }, 'Alert: something_new'],
  ]
  for (const [alert, said] of cases) assert.equal(words({ id: 'r-1-0', t: 0, kind: '', ...alert }), said)
})

test('the address carries market, interval and opens, and nothing in it can break the page', () => {
  const id = 'a/b?c d'
  for (const [interval, openMode] of /** @type {[string, 'exchange' | 'continuous'][]} */ ([['1m', 'exchange'], ['5m', 'continuous']])) {
    const { market, interval: read, openMode: opens } = readAddress(writeAddress(id, interval, openMode))
    assert.deepEqual([market, read, opens ?? 'exchange'], [id, interval, openMode])
  }
  assert.equal(writeAddress('m', '1m'), '#/market/m/1m')
  assert.equal(writeAddress('m', '1m', 'continuous'), '#/market/m/1m?open=previous')
  assert.deepEqual(readAddress('#/market/m/1m?open=first'), { market: 'm', interval: '1m', openMode: 'exchange' })
  for (const hash of ['', '#', '#/', '#/nowhere/m', '#/market/', '#/market/%E0%A4%A', '#/market/%?open=constructor']) {
    assert.deepEqual(readAddress(hash), { market: '', interval: '', openMode: null }, hash)
  }
})

test('a continuous candle opens at the close before it and is widened by it', () => {
  const row = { t: 60_000, o: '0.0000000015', h: '0.0000000016', l: '0.0000000014', c: '0.0000000015', v: '1' }
  const power = powerFor(row.c)
  assert.equal(power, 9)
  assert.deepEqual(toBar(row, 'exchange', power), { time: 60, open: 1.5, high: 1.6, low: 1.4, close: 1.5 })
  assert.deepEqual(toBar(row, 'continuous', power), toBar(row, 'exchange', power), 'a first candle has none before it')
  for (const [pc, high, low] of /** @type {[string, number, number][]} */ ([
    ['0.00000000155', 1.6, 1.4], ['0.000000002', 2, 1.4], ['0.000000001', 1.6, 1],
  ])) {
    const before = drawn(pc, power)
    assert.deepEqual(toBar({ ...row, pc }, 'continuous', power), { time: 60, open: before, high, low, close: 1.5 })
    assert.equal(toBar({ ...row, pc }, 'exchange', power).open, 1.5)
  }
  assert.equal(undrawn(1.5, power), 1.5e-9)
})

test('a candle is found by its time, or the place where it belongs', () => {
  const rows = [60, 120, 240].map((t) => ({ t, o: '1', h: '1', l: '1', c: '1', v: '1' }))
  assert.deepEqual([0, 60, 61, 120, 239, 240, 241].map((t) => indexOf(rows, t)), [0, 0, 1, 1, 2, 2, 3])
  assert.equal(indexOf([], 5), 0)
})

/** A Socket.IO client whose subscriptions are answered by hand. */
class FakeSocket extends EventEmitter {
  connected = true
  /** @type {{request: any, answer: (value: any) => void}[]} */
  asked = []
  timeout() {
    return { emitWithAck: (/** @type {string} */ _event, /** @type {any} */ request) => new Promise((answer) => this.asked.push({ request, answer })) }
  }
}

const tick = (ms = 5) => new Promise((resolve) => setTimeout(resolve, ms))

/** @param {FakeSocket} socket */
function openTrades(socket) {
  /** @type {any[]} */
  const log = []
  const feed = createFeed(socket)
  const topic = feed.open({ topic: 'trades', market: 'm' }, {
    snapshot: ({ items }, why) => log.push([why, ...items]),
    change: ({ items }) => log.push(...items),
  })
  return { log, topic }
}

test('changes that arrive before the snapshot are applied after it, unless it has them', async () => {
  const socket = new FakeSocket()
  const { log } = openTrades(socket)
  await tick()
  socket.emit('trades', { s: 'm', epoch: 1, seq: 5, items: ['old'] })
  socket.emit('trades', { s: 'm', epoch: 1, seq: 6, items: ['new'] })
  socket.emit('trades', { s: 'other', epoch: 1, seq: 7, items: ['foreign'] })
  assert.deepEqual(log, [])
  socket.asked[0].answer({ ok: true, epoch: 1, seq: 5, items: ['snapshot'] })
  await tick()
  socket.emit('trades', { s: 'm', epoch: 1, seq: 8, items: ['live'] })
  assert.deepEqual(log, [['open', 'snapshot'], 'new', 'live'])
})

test('a reconnect takes a fresh snapshot, and a late answer of the old one is ignored', async () => {
  const socket = new FakeSocket()
  const { log } = openTrades(socket)
  await tick()
  socket.emit('connect')
  await tick()
  socket.asked[1].answer({ ok: true, epoch: 1, seq: 9, items: ['fresh'] })
  await tick()
  socket.asked[0].answer({ ok: true, epoch: 1, seq: 1, items: ['stale'] })
  await tick()
  assert.deepEqual(log, [['connect', 'fresh']])
})

test('a refused subscription is tried again, a closed one is not', async () => {
  const socket = new FakeSocket()
  const { log, topic } = openTrades(socket)
  await tick()
  socket.asked[0].answer({ ok: false, error: 'history is not available' })
  await tick(1_100)
  assert.equal(socket.asked.length, 2)
  topic.close()
  socket.asked[1].answer({ ok: true, epoch: 1, seq: 1, items: [] })
  await tick()
  assert.deepEqual(log, [])
})

for (const event of ['reorg', 'resync']) {
  test(`a ${event} takes a fresh snapshot`, async () => {
    const socket = new FakeSocket()
    const { log } = openTrades(socket)
    await tick()
    socket.asked[0].answer({ ok: true, epoch: 1, seq: 1, items: [] })
    await tick()
    socket.emit(event, { s: 'm', ancestor: { number: 1 } })
    await tick(900)
    socket.asked[1].answer({ ok: true, epoch: 1, seq: 2, items: ['after'] })
    await tick()
    assert.deepEqual(log.at(-1), [event, 'after'])
  })
}
