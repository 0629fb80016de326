// @ts-check
/** What the page says about itself: the state of the connection, and passing notices. */

import { byId, setText } from './dom.js'

const TOAST_MS = 7_000
const PATIENCE_MS = 1_500 // a short break is not worth a banner

/** @typedef {'live' | 'waiting' | 'reconnecting'} State */

/** @type {Record<State, string>} */
const WORDS = { live: 'Live', waiting: 'Waiting for data', reconnecting: 'Reconnecting' }

/** @type {Record<State, string>} */
const BANNERS = {
  live: '',
  waiting: 'No listener is connected, so nothing moves.',
  reconnecting: 'Connection lost. The page updates itself when it is back.',
}

/** The badge in the corner and, when a break lasts, a banner that says how old the figures are. */
export function createConnection() {
  const badge = byId('connection')
  const banner = byId('banner')
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer
  let liveUntilMs = 0
  /** @type {State | ''} */
  let state = ''

  /** @param {State} now */
  function showBanner(now) {
    banner.hidden = now === 'live'
    const since = liveUntilMs ? ` What you see is from ${new Date(liveUntilMs).toISOString().slice(11, 19)} UTC.` : ''
    setText(banner, now === 'live' ? '' : BANNERS[now] + since)
  }

  return {
    get connected() { return state !== '' && state !== 'reconnecting' },

    /** @param {State} now */
    show(now) {
      if (now === state) return
      if (state === 'live') liveUntilMs = Date.now()
      state = now
      badge.dataset.state = now
      setText(badge.lastElementChild, WORDS[now])
      clearTimeout(timer)
      if (now === 'live') showBanner(now)
      else timer = setTimeout(showBanner, PATIENCE_MS, now)
    },
  }
}

/** A notice that goes away by itself. @param {string} text */
export function toast(text) {
  const element = byId('toast')
  clearTimeout(Number(element.dataset.timer))
  setText(element, text)
  element.dataset.shown = ''
  element.dataset.timer = String(setTimeout(() => {
    delete element.dataset.shown
    setText(element, '')
  }, TOAST_MS))
}
