// @ts-check
/** The list of markets: search, order, live figures. */

import { api } from './api.js'
import { byId, flash, make, note, paintAvatar, press, setText, showPrice } from './dom.js'
import { isNewer } from './feed.js'
import { age, compact, dateTime, direction, percent } from './format.js'

const PAGE = 50
const ROWS_MAX = 500
const LIVE_MAX = 5_000 // markets whose newest figures are remembered between two readings
const SEARCH_DELAY_MS = 200
const REORDER_MS = 1_500 // rows move at most this often
const REREAD_MS = 30_000
const CREATED_AT_ONCE_MAX = 20

/** @type {Record<string, (row: any) => number>} */
const RANK = {
  newest: (row) => row.createdAt ?? 0,
  volume: (row) => Number(row.stats?.quoteVolume ?? 0),
  trades: (row) => row.stats?.count ?? 0,
  gainers: (row) => Number(row.stats?.priceChangePercent ?? -Infinity),
  losers: (row) => -Number(row.stats?.priceChangePercent ?? Infinity),
}

/** @param {any} row */
export const isGraduated = (row) => row.status === 'graduated' || Boolean(row.successor)

/**
 * @param {object} options
 * @param {(id: string) => string} options.linkTo
 * @param {(first: string | undefined) => void} options.onLoaded  Id of the first row.
 */
export function createMarketList({ linkTo, onLoaded }) {
  const list = byId('market-list')
  const noteBox = byId('market-note')
  const more = byId('more')
  const sorts = byId('sorts')
  const search = byId('search')

  /** @type {Map<string, any>} Markets on show. */
  const rows = new Map()
  /** @type {Map<string, {mark: {epoch: number, seq: number}, stats: any}>} Newest figures received live. */
  const live = new Map()
  /** @type {Map<string, any>} */
  const elements = new Map()
  let sort = 'volume'
  let total = 0
  let selected = ''
  let asked = 0
  let ordered = true

  /** @param {any} row */
  function build(row) {
    const item = make('li')
    const link = /** @type {HTMLAnchorElement} */ (make('a', 'market'))
    const avatar = make('span', 'avatar')
    const symbol = make('b', 'symbol')
    const badge = make('span', 'badge tiny')
    const last = make('span', 'price')
    const about = make('span', 'about')
    const change = make('span', 'change')
    const top = make('span', 'line')
    const bottom = make('span', 'line')
    const name = make('span', 'market-name')
    avatar.setAttribute('aria-hidden', 'true')
    const born = make('span', 'born')
    name.append(symbol, born, badge)
    top.append(name, last)
    bottom.append(about, change)
    const text = make('span', 'lines')
    text.append(top, bottom)
    link.append(avatar, text)
    item.append(link)
    const element = { item, link, avatar, symbol, born, badge, last, about, change }
    elements.set(row.s, element)
    return element
  }

  /** @param {any} row */
  function paint(row) {
    const el = elements.get(row.s) ?? build(row)
    const stats = row.stats ?? {}
    el.link.href = linkTo(row.s)
    paintAvatar(el.avatar, row.s, row.symbol ?? '?')
    setText(el.symbol, row.symbol || 'Unnamed')
    el.symbol.title = row.name ?? ''
    el.badge.hidden = !isGraduated(row)
    setText(el.badge, isGraduated(row) ? 'Graduated' : '')
    showPrice(el.last, stats.lastPrice)
    setText(el.about, `Vol ${compact(stats.quoteVolume ?? 0)} · ${compact(stats.count ?? 0)} trades`)
    setText(el.born, row.createdAt ? age(row.createdAt) : '')
    el.born.title = row.createdAt ? `Created ${dateTime(row.createdAt)}` : ''
    setText(el.change, percent(stats.priceChangePercent))
    el.change.dataset.side = direction(stats.priceChangePercent)
    el.link.toggleAttribute('aria-current', row.s === selected)
    return el
  }

  function render() {
    const rank = RANK[sort]
    const wanted = [...rows.values()].sort((a, b) => rank(b) - rank(a) || RANK.newest(b) - RANK.newest(a))
    wanted.forEach((row, at) => {
      const { item } = paint(row)
      if (list.children[at] !== item) list.insertBefore(item, list.children[at] ?? null)
    })
    while (list.children.length > wanted.length) list.lastElementChild?.remove()
    for (const id of elements.keys()) if (!rows.has(id)) elements.delete(id)
    more.hidden = rows.size >= total || rows.size >= ROWS_MAX
    setText(byId('market-total'), total ? `${total.toLocaleString('en-US')} market${total === 1 ? '' : 's'}` : '')
    ordered = true
    return wanted[0]?.s
  }

  /**
   * Reads the first rows again, or one page more.
   * @param {number} [count]
   */
  async function load(count = PAGE) {
    const mine = ++asked
    const query = search.value.trim()
    try {
      /** @type {any[]} */
      const found = []
      do {
        const page = await api.markets({ sort, q: query || undefined, offset: found.length, limit: Math.min(100, count - found.length) })
        if (mine !== asked) return
        total = page.total
        found.push(...page.items.map((/** @type {any} */ row) => {
          const known = live.get(row.s)
          return known && isNewer(known.mark, page) ? { ...row, stats: known.stats } : row
        }))
        if (page.items.length === 0) break
      } while (found.length < Math.min(count, total))
      rows.clear()
      for (const row of found) rows.set(row.s, row)
      const first = render()
      if (rows.size) note(noteBox, '')
      else if (query) note(noteBox, 'Nothing found', 'Try a symbol, a name or an address.')
      else note(noteBox, 'No markets yet', 'A market shows up here as soon as it is created.')
      onLoaded(first)
    } catch (error) {
      if (mine !== asked) return
      if (rows.size === 0) note(noteBox, 'Markets cannot be read', error instanceof Error ? error.message : '', () => load())
    }
  }

  function skeleton() {
    list.replaceChildren(...Array.from({ length: 8 }, () => make('li', 'skeleton')))
  }

  sorts.addEventListener('click', (/** @type {any} */ event) => {
    const next = event.target.dataset?.sort
    if (!next || next === sort) return
    sort = next
    press(sorts, (button) => button.dataset.sort === sort)
    byId('market-list').parentElement?.scrollTo({ top: 0 })
    load()
  })
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let typing
  search.addEventListener('input', () => {
    clearTimeout(typing)
    typing = setTimeout(load, SEARCH_DELAY_MS)
  })
  more.addEventListener('click', () => load(Math.min(rows.size + PAGE, ROWS_MAX)))
  setInterval(() => { if (!ordered) render() }, REORDER_MS)
  setInterval(() => { if (!document.hidden) load(Math.max(PAGE, rows.size)) }, REREAD_MS)

  skeleton()

  return {
    load: () => load(Math.max(PAGE, rows.size)),

    /** @param {string} id */
    get: (id) => rows.get(id),

    /** @param {string} id */
    select(id) {
      selected = id
      for (const [s, { link }] of elements) link.toggleAttribute('aria-current', s === id)
    },

    /** New 24 h figures. @param {{epoch: number, seq: number, items: any[]}} change */
    applyStats({ epoch, seq, items }) {
      for (const { s, ...stats } of items) {
        live.delete(s)
        live.set(s, { mark: { epoch, seq }, stats })
        if (live.size > LIVE_MAX) live.delete(live.keys().next().value ?? '')
        const row = rows.get(s)
        if (!row) continue
        const before = Number(row.stats?.lastPrice ?? 0)
        row.stats = stats
        const { link } = paint(row)
        const now = Number(stats.lastPrice ?? 0)
        if (now !== before) flash(link, now > before ? 'up' : 'down')
        ordered = false
      }
    },

    /** A trade moves its market's price at once. @param {any} trade */
    applyTrade(trade) {
      const row = rows.get(trade.s)
      const element = elements.get(trade.s)
      if (row && element) showPrice(element.last, trade.p)
    },

    /** Markets that are new, changed or undone. @param {any[]} items */
    applyRecords(items) {
      let added = 0
      for (const { s, deleted, ...record } of items) {
        if (deleted) {
          total -= rows.delete(s) ? 1 : 0
        } else if (rows.has(s)) {
          Object.assign(rows.get(s), record)
        } else if (!search.value.trim() && ++added <= CREATED_AT_ONCE_MAX) {
          rows.set(s, { s, ...record, stats: live.get(s)?.stats ?? null })
          total += 1
        }
      }
      if (rows.size) note(noteBox, '')
      render()
    },
  }
}
