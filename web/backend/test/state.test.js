// @ts-check
/** The bounded memory of newest values. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { State } from '../src/state.js'
import { MARKET, OTHER, candle, record, stats, trade } from './helpers.js'

const newState = (bounds = {}) => new State({ marketsMax: 3, tradesMax: 3, ...bounds })

test('trades stand newest first by block and log index, once each, and bounded', () => {
  const state = newState()
  state.addTrades([trade(1), trade(3), trade(2), trade(3), trade(3, { id: '3-7', li: 7 })])
  assert.deepEqual(state.get(MARKET)?.trades.map(({ id }) => id), ['3-7', '3-0', '2-0'])
})

test('a candle replaces the last one by open time; an older one is not the last', () => {
  const state = newState()
  state.putCandles([candle(60_000, { s: MARKET, i: '1m' }), candle(0, { s: MARKET, i: '1m', c: '9' })])
  state.putCandles([candle(60_000, { s: MARKET, i: '1m', c: '1.7' })])
  assert.equal(state.get(MARKET)?.candles.get('1m')?.c, '1.7')
})

test('deleting the last candle says which series must be read again', () => {
  const state = newState()
  state.putCandles([candle(60_000, { s: MARKET, i: '1m' })])
  assert.deepEqual(state.putCandles([/** @type {any} */ ({ s: MARKET, i: '1m', t: 0, deleted: true })]), [])
  assert.deepEqual(
    state.putCandles([/** @type {any} */ ({ s: MARKET, i: '1m', t: 60_000, deleted: true })]),
    [{ market: MARKET, interval: '1m' }],
  )
  assert.equal(state.get(MARKET)?.candles.size, 0)
})

test('a reorg drops trades above the ancestor, of its markets only', () => {
  const state = newState()
  state.addTrades([trade(5), trade(6), trade(6, { s: OTHER })])
  assert.deepEqual(state.applyReorg({ ancestor: { number: 5 }, markets: [MARKET, '0xunknown'] }), [MARKET])
  assert.deepEqual(state.get(MARKET)?.trades.map(({ b }) => b), [5])
  assert.deepEqual(state.get(OTHER)?.trades.map(({ b }) => b), [6])
})

test('the market that has not changed for longest goes first', () => {
  const state = newState({ marketsMax: 2 })
  state.putStats([{ s: 'a', ...stats() }, { s: 'b', ...stats() }])
  state.addTrades([trade(1, { s: 'a' })])
  state.putStats([{ s: 'c', ...stats() }])
  assert.equal(state.get('b'), undefined)
  assert.deepEqual([state.size, state.evicted], [2, 1])
})

test('an undone market is forgotten, and the dump has the shape of Redis', () => {
  const state = newState()
  state.putMarkets([{ s: MARKET, ...record(1) }, { s: OTHER, ...record(2) }])
  state.putCandles([candle(0, { s: MARKET, i: '1m', T: 59_999 })])
  state.putMarkets([{ s: OTHER, deleted: true }])
  const { markets } = state.dump()
  assert.deepEqual(Object.keys(markets), [MARKET])
  assert.deepEqual(markets[MARKET].candles, { '1m': candle(0) })
})
