// @ts-check
/** The newest markets, in the order of their creation: a feed above the list. */

import { api } from './api.js'
import { byId, make, paintAvatar, setText } from './dom.js'
import { age, dateTime } from './format.js'
import { mark } from './markets.js'

const LAUNCHES_MAX = 8
const AGE_MS = 1_000
const READS_MAX = 3 // while markets are created as fast as the list is read

/** @param {(id: string) => string} linkTo */
export function createLaunches(linkTo) {
  const section = byId('launches')
  const list = byId('launch-list')
  /** @type {any[]} Newest first. */
  let markets = []
  /** @type {Map<string, {item: HTMLElement, age: HTMLElement}>} */
  const elements = new Map()
  let selected = ''
  let loading = false
  let again = false

  /** @param {any} market */
  function build(market) {
    const item = make('li')
    const link = /** @type {HTMLAnchorElement} */ (make('a', 'launch'))
    const avatar = make('span', 'avatar small')
    const born = make('span', 'born')
    avatar.setAttribute('aria-hidden', 'true')
    paintAvatar(avatar, market.s, market.symbol || '?')
    link.href = linkTo(market.s)
    link.title = `${market.name || market.s}, created ${dateTime(market.createdAt)}`
    link.append(avatar, make('b', '', market.symbol || 'Unnamed'), born)
    item.append(link)
    const element = { item, age: born }
    elements.set(market.s, element)
    return element
  }

  function tick() {
    const now = Date.now()
    for (const { s, createdAt } of markets) {
      const element = elements.get(s)
      if (element) setText(element.age, age(createdAt, now))
    }
  }

  /** @param {boolean} animate */
  function render(animate) {
    markets.sort((a, b) => b.createdAt - a.createdAt || b.createdBlock - a.createdBlock)
    markets.length = Math.min(markets.length, LAUNCHES_MAX)
    const kept = new Set(markets.map(({ s }) => s))
    for (const [s, { item }] of elements) {
      if (kept.has(s)) continue
      item.remove()
      elements.delete(s)
    }
    markets.forEach((market, at) => {
      let element = elements.get(market.s)
      if (!element) {
        element = build(market)
        if (animate) element.item.classList.add('launched')
      }
      mark(/** @type {Element} */ (element.item.firstElementChild), market.s === selected)
      if (list.children[at] !== element.item) list.insertBefore(element.item, list.children[at] ?? null)
    })
    section.hidden = markets.length === 0
    tick()
  }

  setInterval(() => { if (!document.hidden) tick() }, AGE_MS)

  /** Reads the newest markets again; a failure leaves what is there. */
  async function load() {
    if (loading) {
      again = true
      return
    }
    loading = true
    try {
      for (let attempt = 0; attempt < READS_MAX; attempt += 1) {
        again = false
        markets = (await api.markets({ sort: 'newest', offset: 0, limit: LAUNCHES_MAX })).items
        if (!again) break
      }
      render(false)
    } catch { /* the list below says so */ } finally {
      loading = false
    }
  }

  return {
    load,

    /** @param {string} id */
    select(id) {
      selected = id
      render(false)
    },

    /** Markets that are new or undone. @param {any[]} items */
    applyRecords(items) {
      const undone = items.filter(({ deleted }) => deleted).length
      const named = new Set(items.map(({ s }) => s))
      const fresh = items.filter(({ deleted, createdAt }) => !deleted && createdAt)
      markets = [...markets.filter(({ s }) => !named.has(s)), ...fresh]
      render(true)
      if (loading || undone) load() // an answer on its way is older; where some are gone, older ones move up
    },
  }
}
