// @ts-check
/** Recent trades of the selected market, newest first. */

import { byId, make, note, setText, showPrice } from './dom.js'
import { age, compact, dateTime, short } from './format.js'

const ROWS_MAX = 60
const AGE_MS = 1_000

/** @param {any} a @param {any} b */
const newestFirst = (a, b) => b.b - a.b || b.li - a.li

export function createTradeList() {
  const body = byId('trade-list')
  const noteBox = byId('trade-note')
  /** @type {any[]} Newest first. */
  let trades = []
  /** @type {Map<string, {row: HTMLElement, age: HTMLElement, hash: string}>} */
  const elements = new Map()

  /** @param {any} trade */
  function build(trade) {
    const row = make('tr', trade.side)
    const last = make('td')
    const figure = make('span', 'price')
    showPrice(figure, trade.p, true)
    const arrow = make('i', 'arrow', trade.side === 'buy' ? '▲' : '▼')
    arrow.setAttribute('role', 'img')
    arrow.setAttribute('aria-label', trade.side)
    last.append(arrow, figure)
    const amount = make('td', 'amount', compact(trade.q))
    amount.title = `${trade.v} for ${trade.q}`
    const trader = make('td', 'trader', short(trade.trader ?? ''))
    trader.title = trade.trader ?? ''
    const when = make('td', 'when', age(trade.t))
    when.title = dateTime(trade.t)
    row.append(last, amount, trader, when)
    return { row, age: when, hash: trade.bh }
  }

  /** @param {boolean} animate */
  function render(animate) {
    trades.sort(newestFirst)
    trades.length = Math.min(trades.length, ROWS_MAX)
    const largest = Math.max(...trades.map(({ q }) => Number(q)), 0)
    const kept = new Set(trades.map(({ id }) => id))
    for (const [id, { row }] of elements) {
      if (kept.has(id)) continue
      row.remove()
      elements.delete(id)
    }
    trades.forEach((trade, at) => {
      let element = elements.get(trade.id)
      if (element && element.hash !== trade.bh) {
        element.row.remove()
        element = undefined
      }
      if (!element) {
        element = build(trade)
        if (animate) element.row.classList.add('fresh')
        elements.set(trade.id, element)
      }
      // Square root: a whale must not make every other bar vanish.
      const share = largest ? Math.sqrt(Number(trade.q) / largest) : 0
      element.row.style.setProperty('--share', `${(share * 100).toFixed(1)}%`)
      if (body.children[at] !== element.row) body.insertBefore(element.row, body.children[at] ?? null)
    })
    note(noteBox, trades.length ? '' : 'No trades yet', trades.length ? '' : 'The first one will appear here.')
  }

  setInterval(() => {
    if (document.hidden) return
    const now = Date.now()
    for (const trade of trades) {
      const element = elements.get(trade.id)
      if (element) setText(element.age, age(trade.t, now))
    }
  }, AGE_MS)

  return {
    /** @param {string} symbol  Of the quote currency. */
    setQuote(symbol) {
      setText(byId('amount-title'), symbol || 'Amount')
    },

    clear() {
      trades = []
      elements.clear()
      body.replaceChildren()
      note(noteBox, '')
    },

    /** @param {any[]} items */
    show(items) {
      trades = [...items]
      render(false)
    },

    /** @param {any[]} items */
    add(items) {
      const fresh = new Set(items.map(({ id }) => id))
      trades = [...items.slice(-ROWS_MAX), ...trades.filter(({ id }) => !fresh.has(id))]
      render(true)
    },

    /** Forgets trades of blocks that are gone. @param {number} block */
    dropAbove(block) {
      trades = trades.filter((trade) => trade.b <= block)
      render(false)
    },
  }
}
