// @ts-check
/** The head of the selected market: identity, last price, 24 h figures. */

import { byId, flash, paintAvatar, setText, showPrice } from './dom.js'
import { age, compact, dateTime, direction, percent, price, short } from './format.js'
import { isGraduated } from './markets.js'

/** Words for states of a market. @type {Record<string, string>} */
const STATUS = { graduated: 'Graduated', bonding: 'On the curve', trading: 'On the curve', active: 'Live' }

export function createHeader() {
  /** @type {any} */
  let market = null
  const element = byId('market-head')
  const address = byId('head-address')

  address.addEventListener('click', async () => {
    if (!market) return
    await navigator.clipboard?.writeText(market.s).catch(() => {})
    setText(address, 'Copied')
    setTimeout(() => market && setText(address, short(market.s)), 1_200)
  })

  function paintRecord() {
    paintAvatar(byId('head-avatar'), market.s, market.symbol ?? '?')
    setText(byId('head-symbol'), market.symbol || 'Unnamed')
    setText(byId('head-name'), market.name ?? '')
    setText(address, short(market.s))
    address.setAttribute('aria-label', `Copy the address ${short(market.s)}`)
    address.title = market.s
    const badge = byId('head-badge')
    const word = isGraduated(market) ? 'Graduated' : STATUS[market.status] ?? ''
    badge.hidden = !word
    badge.classList.toggle('muted', !isGraduated(market))
    setText(badge, word)
    const created = byId('fig-created')
    setText(created, market.createdAt ? `${age(market.createdAt)} ago` : '–')
    created.title = market.createdAt ? dateTime(market.createdAt) : ''
  }

  function paintStats() {
    const { stats, quoteSymbol = '' } = market
    showPrice(byId('head-price'), stats?.lastPrice, true)
    const change = byId('head-change')
    setText(change, percent(stats?.priceChangePercent))
    change.dataset.side = direction(stats?.priceChangePercent)
    showPrice(byId('fig-high'), stats?.highPrice, true)
    showPrice(byId('fig-low'), stats?.lowPrice, true)
    const volume = byId('fig-volume')
    setText(volume, stats ? `${compact(stats.quoteVolume)} ${quoteSymbol}` : '–')
    volume.title = stats?.quoteVolume ?? ''
    setText(byId('fig-trades'), stats ? Number(stats.count ?? 0).toLocaleString('en-US') : '–')
    const buys = Number(stats?.buyCount ?? 0)
    const sells = Number(stats?.sellCount ?? 0)
    setText(byId('fig-buys'), compact(buys))
    setText(byId('fig-sells'), compact(sells))
    byId('fig-bar').parentElement?.toggleAttribute('data-empty', buys + sells === 0)
    byId('fig-bar').style.width = buys + sells ? `${(buys / (buys + sells)) * 100}%` : '50%'
    document.title = stats?.lastPrice ? `${price(stats.lastPrice)} ${market.symbol ?? ''} · 0xPads Charts` : '0xPads Charts'
  }

  return {
    /** @param {any} next */
    show(next) {
      market = next
      element.hidden = !next
      if (!next) return
      paintRecord()
      paintStats()
    },

    /** @param {any} stats */
    applyStats(stats) {
      if (!market) return
      const before = Number(market.stats?.lastPrice ?? 0)
      const now = Number(stats.lastPrice ?? 0)
      market.stats = stats
      paintStats()
      if (now !== before) flash(byId('head-price'), now > before ? 'up' : 'down')
    },

    /** @param {any} record */
    applyRecord(record) {
      if (!market) return
      Object.assign(market, record)
      paintRecord()
    },

    /** A trade is the last price, before the figures follow. @param {any} trade */
    applyTrade(trade) {
      if (market) showPrice(byId('head-price'), trade.p, true)
    },
  }
}
