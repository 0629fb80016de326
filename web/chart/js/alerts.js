// @ts-check
/** Alerts of the market on show: small notices that go by themselves. One that a reorg undid is struck through. */

import { byId, make } from './dom.js'
import { age, compact, percent, price } from './format.js'

const SHOWN_MAX = 4
const SHOWN_MS = 60_000
const RETRACTED_MS = 15_000

/** @typedef {{id: string, kind: string, t: number, value?: string, threshold?: string, windowMs?: number, retracted?: boolean}} Alert */

/** What has happened, in a few words. @param {Alert} alert */
export function words({ kind, value, threshold, windowMs = 0 }) {
  const within = `within ${age(0, windowMs)}`
  switch (kind) {
    case 'price_above': return `Price above ${price(threshold)}: ${price(value)}`
    case 'price_below': return `Price below ${price(threshold)}: ${price(value)}`
    case 'change': return `Price ${percent(value)} ${within}`
    case 'volume_spike': return `Volume ${compact(value)} times the usual ${within}`
    case 'trade_size': return `Trade of ${compact(value)}`
    case 'market_created': return 'Market created'
    case 'graduated': return 'Market graduated'
    default: return `Alert: ${kind}`
  }
}

export function createAlerts() {
  const list = byId('alerts')
  /** @type {Map<string, {row: HTMLElement, timer: ReturnType<typeof setTimeout>}>} Oldest first. */
  const shown = new Map()

  /** @param {string} id */
  function remove(id) {
    clearTimeout(shown.get(id)?.timer)
    shown.get(id)?.row.remove()
    shown.delete(id)
  }

  /** @param {Alert} alert */
  function build(alert) {
    const row = make('li', alert.retracted ? 'alert retracted' : 'alert')
    const text = make(alert.retracted ? 's' : 'span', '', words(alert))
    if (alert.value) text.title = alert.value
    const when = make('time', '', new Date(alert.t).toISOString().slice(11, 19))
    row.append(text, when)
    if (alert.retracted) row.append(make('span', '', 'undone by the chain'))
    const close = make('button', 'icon-button', '×')
    close.setAttribute('type', 'button')
    close.setAttribute('aria-label', 'Dismiss')
    close.addEventListener('click', () => remove(alert.id))
    row.append(close)
    return row
  }

  return {
    /** @param {Alert[]} items  In order. */
    show(items) {
      for (const alert of items) {
        const known = shown.has(alert.id)
        remove(alert.id)
        if (alert.retracted && !known) continue // nobody has seen it
        const row = build(alert)
        list.append(row)
        shown.set(alert.id, { row, timer: setTimeout(remove, alert.retracted ? RETRACTED_MS : SHOWN_MS, alert.id) })
        if (shown.size > SHOWN_MAX) remove([...shown.keys()][0])
      }
    },

    clear() {
      for (const id of [...shown.keys()]) remove(id)
    },
  }
}
