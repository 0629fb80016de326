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
const HOLD_MS = 2_000 // … and not away from under a pointer that is on its way
const REREAD_MS = 30_000

/** @type {Record<string, (row: any) => number>} */
const RANK = {
  newest: (row) => row.createdAt ?? 0,
  volume: (row) => Number(row.stats?.quoteVolume ?? 0),
  trades: (row) => row.stats?.count ?? 0,
  gainers: (row) => Number(row.stats?.priceChangePercent ?? -Infinity),
  losers: (row) => -Number(row.stats?.priceChangePercent ?? Infinity),
}

/**
 * Remembers the newest value of a market, and so many markets.
 * @template T
 * @param {Map<string, T>} known @param {string} s @param {T} value
 */
function keep(known, s, value) {
  known.delete(s)
  known.set(s, value)
  if (known.size > LIVE_MAX) known.delete(known.keys().next().value ?? '')
}

/** @param {number} trades */
const counted = (trades) => (trades === 1 ? '1 trade' : `${compact(trades)} trades`)

/** Says which market is on show. @param {Element} link @param {boolean} on */
export function mark(link, on) {
  if (on) link.setAttribute('aria-current', 'true')
  else link.removeAttribute('aria-current')
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
  /** @type {Map<string, {mark: {epoch: number, seq: number}, record: any, created: boolean}>} Newest records received live; null: undone. */
  const records = new Map()
  /** @type {Map<string, any>} */
  const elements = new Map()
  let sort = 'volume'
  let total = 0
  let selected = ''
  let asked = 0
  let ordered = true
  let pointedAtMs = -Infinity

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
    showPrice(el.last, stats.lastPrice, true)
    setText(el.about, row.stats ? `Vol ${compact(stats.quoteVolume ?? 0)} · ${counted(stats.count ?? 0)}` : 'No trades yet')
    setText(el.born, row.createdAt ? age(row.createdAt) : '')
    el.born.title = row.createdAt ? `Created ${dateTime(row.createdAt)}` : ''
    setText(el.change, percent(stats.priceChangePercent))
    el.change.dataset.side = direction(stats.priceChangePercent)
    mark(el.link, row.s === selected)
    return el
  }

  function render() {
    const focused = /** @type {HTMLElement | null} */ (list.contains(document.activeElement) ? document.activeElement : null)
    const rank = RANK[sort]
    const wanted = [...rows.values()].sort((a, b) => rank(b) - rank(a) || RANK.newest(b) - RANK.newest(a))
    wanted.forEach((row, at) => {
      const { item } = paint(row)
      if (list.children[at] !== item) list.insertBefore(item, list.children[at] ?? null)
    })
    while (list.children.length > wanted.length) list.lastElementChild?.remove()
    if (focused?.isConnected) focused.focus({ preventScroll: true }) // a row that moves loses it
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
      let position = { epoch: 0, seq: 0 }
      do {
        const page = await api.markets({ sort, q: query || undefined, offset: found.length, limit: Math.min(100, count - found.length) })
        if (mine !== asked) return
        if (found.length === 0) position = page
        total = page.total
        found.push(...page.items.map((/** @type {any} */ row) => {
          const known = live.get(row.s)
          return known && isNewer(known.mark, page) ? { ...row, stats: known.stats } : row
        }))
        if (page.items.length === 0) break
      } while (found.length < Math.min(count, total))
      replace(found, position)
      const first = render()
      if (rows.size) note(noteBox, '')
      else if (query) note(noteBox, 'Nothing found', `No market has “${query}” in its name, symbol or address.`)
      else note(noteBox, 'No markets yet', 'A market shows up here as soon as it is created.')
      onLoaded(first)
    } catch (error) {
      if (mine !== asked) return
      if (rows.size === 0) note(noteBox, 'Markets cannot be read', error instanceof Error ? error.message : '', () => load())
    }
  }

  const reload = () => load(Math.min(ROWS_MAX, Math.max(PAGE, rows.size)))

  /** Does the search find a market that is not listed yet? @param {any} record */
  function isWanted(record) {
    const needle = search.value.trim().toLowerCase()
    return !needle || [record.s, record.symbol, record.name, record.token, record.creator]
      .some((text) => text?.toLowerCase().includes(needle))
  }

  /** @param {string} s @param {any} record  Null: undone. @param {boolean} created */
  function apply(s, record, created) {
    if (!record) total -= rows.delete(s) ? 1 : 0
    else if (rows.has(s)) Object.assign(rows.get(s), record)
    else if (created && isWanted(record)) {
      total += 1
      if (rows.size < ROWS_MAX) rows.set(s, { ...record, stats: live.get(s)?.stats ?? null })
    }
  }

  /**
   * Takes rows as read, with what was heard since then.
   * @param {any[]} found
   * @param {{epoch: number, seq: number}} position  Up to which they hold.
   */
  function replace(found, position) {
    rows.clear()
    for (const row of found) rows.set(row.s, row)
    for (const [s, { mark: at, record, created }] of records) {
      if (isNewer(at, position)) apply(s, record, created)
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
  list.addEventListener('pointermove', () => { pointedAtMs = performance.now() })
  setInterval(() => { if (!ordered && performance.now() - pointedAtMs > HOLD_MS) render() }, REORDER_MS)
  setInterval(() => { if (!document.hidden) reload() }, REREAD_MS)

  skeleton()

  return {
    load: reload,

    /** @param {string} id */
    get: (id) => rows.get(id),

    /** @param {string} id */
    select(id) {
      selected = id
      for (const [s, { link }] of elements) mark(link, s === id)
    },

    /** Opens the market so many rows further down. @param {number} step */
    step(step) {
      const links = [...list.querySelectorAll('a')]
      const at = links.findIndex((link) => link.hasAttribute('aria-current'))
      const next = links[at < 0 ? 0 : Math.max(0, Math.min(links.length - 1, at + step))]
      next?.scrollIntoView({ block: 'nearest' })
      next?.click()
    },

    /** New 24 h figures. @param {{epoch: number, seq: number, items: any[]}} change */
    applyStats({ epoch, seq, items }) {
      for (const { s, ...stats } of items) {
        keep(live, s, { mark: { epoch, seq }, stats })
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
      if (row && element) showPrice(element.last, trade.p, true)
    },

    /**
     * Markets that are new, changed or undone.
     * @param {{epoch: number, seq: number, items: any[]}} change
     * @param {boolean} created  They are new, or no longer.
     */
    applyRecords({ epoch, seq, items }, created) {
      for (const { deleted, ...record } of items) {
        keep(records, record.s, { mark: { epoch, seq }, record: deleted ? null : record, created })
        apply(record.s, deleted ? null : record, created)
      }
      if (rows.size) note(noteBox, '')
      render()
    },
  }
}
