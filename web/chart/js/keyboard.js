// @ts-check
/** Everything by keyboard: shortcuts and their help, arrows in the list of markets and in the chart. */

import { byId, make } from './dom.js'
import { recall, remember } from './storage.js'

const FAR = 10 // candles that Shift and an arrow go

/**
 * @typedef {object} Actions
 * @property {(step: number) => void} market    The next one of the list, or the one before.
 * @property {(step: number) => void} interval  The next longer one, or the one before.
 * @property {(place: number) => void} nthInterval
 * @property {() => void} openMode
 * @property {() => void} log
 * @property {() => void} latest
 * @property {() => void} theme
 * @property {() => void} search
 *
 * @typedef {{keys: string[], shown: string[], text: string, run: (actions: Actions, key: string) => void}} Shortcut
 */

/** Keys of the whole page. The help is made of this table. @type {Shortcut[]} */
const SHORTCUTS = [
  { keys: ['/'], shown: ['/'], text: 'Search markets', run: (act) => act.search() },
  { keys: ['j', 'k'], shown: ['J', 'K'], text: 'Next, previous market', run: (act, key) => act.market(key === 'j' ? 1 : -1) },
  { keys: ['[', ']'], shown: ['[', ']'], text: 'Shorter, longer interval', run: (act, key) => act.interval(key === ']' ? 1 : -1) },
  { keys: [...'123456789'], shown: ['1', '…', '9'], text: 'Interval by its place', run: (act, key) => act.nthInterval(Number(key) - 1) },
  { keys: ['c'], shown: ['C'], text: 'Exchange or continuous candles', run: (act) => act.openMode() },
  { keys: ['l'], shown: ['L'], text: 'Logarithmic scale', run: (act) => act.log() },
  { keys: ['e'], shown: ['E'], text: 'Jump to the latest candle', run: (act) => act.latest() },
  { keys: ['t'], shown: ['T'], text: 'Dark, light, or as the system', run: (act) => act.theme() },
  { keys: ['?'], shown: ['?'], text: 'This help', run: () => openHelp() },
]

/** Keys that work where the focus is; for the help only. */
const ELSEWHERE = [
  { shown: ['↑', '↓'], text: 'In the search and the list: from market to market' },
  { shown: ['Enter'], text: 'In the search: open the first market found' },
  { shown: ['Esc'], text: 'In the search: empty it, then leave it' },
  { shown: ['←', '→'], text: 'In the chart: from candle to candle, with Shift ten at once' },
  { shown: ['Home', 'End'], text: 'In the chart: first loaded, last candle' },
  { shown: ['+', '−'], text: 'In the chart: zoom' },
]

const help = () => /** @type {HTMLDialogElement} */ (byId('help'))

function openHelp() {
  if (!help().open) help().showModal()
}

/** @param {{shown: string[], text: string}} shortcut */
function helpRow({ shown, text }) {
  const row = make('div')
  const keys = make('dt')
  keys.append(...shown.map((key) => (key === '…' ? make('span', '', key) : make('kbd', '', key))))
  row.append(keys, make('dd', '', text))
  return row
}

function buildHelp() {
  byId('help-keys').replaceChildren(...SHORTCUTS.map(helpRow))
  byId('help-more').replaceChildren(...ELSEWHERE.map(helpRow))
  byId('help-open').addEventListener('click', openHelp)
  byId('help-close').addEventListener('click', () => help().close())
  help().addEventListener('click', (event) => { if (event.target === help()) help().close() }) // beside the box
}

/** @param {EventTarget | null} target */
const isTyping = (target) => target instanceof HTMLElement && target.matches('input:not([type=checkbox]), textarea, select')

/** Single keys can be turned off: they are in the way of some who speak to their computer. */
function createSwitch() {
  const box = /** @type {HTMLInputElement} */ (byId('shortcuts-on'))
  box.checked = recall('shortcuts') !== 'off'
  box.addEventListener('change', () => remember('shortcuts', box.checked ? '' : 'off'))
  return () => box.checked
}

/** @param {Actions} actions */
export function createShortcuts(actions) {
  buildHelp()
  const areOn = createSwitch()
  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return
    if (isTyping(event.target) || help().open || !areOn()) return
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key
    const shortcut = SHORTCUTS.find(({ keys }) => keys.includes(key))
    if (!shortcut) return
    event.preventDefault()
    shortcut.run(actions, key)
  })
}

/** Arrows go from the search into the list and through it. */
export function createListKeys() {
  const search = /** @type {HTMLInputElement} */ (byId('search'))
  const list = byId('market-list')
  const links = () => /** @type {HTMLElement[]} */ ([...list.querySelectorAll('a')])

  search.addEventListener('keydown', (event) => {
    const [first] = links()
    if (event.key === 'ArrowDown') first?.focus()
    else if (event.key === 'Enter') first?.click()
    else if (event.key === 'Escape' && !search.value) search.blur()
    else return
    event.preventDefault()
  })
  list.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
    const all = links()
    const at = all.indexOf(/** @type {HTMLElement} */ (document.activeElement))
    /** @type {Record<string, number>} */
    const places = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }
    if (at < 0 || !(event.key in places)) return
    event.preventDefault()
    if (places[event.key] < 0) search.focus()
    else all[Math.min(places[event.key], all.length - 1)].focus()
  })
}

/**
 * The chart while it has the focus.
 * @param {HTMLElement} element
 * @param {ReturnType<import('./cursor.js').createCursor>} cursor
 */
export function createChartKeys(element, cursor) {
  /** @type {Record<string, (far: boolean) => void>} */
  const keys = {
    ArrowLeft: (far) => cursor.move(far ? -FAR : -1),
    ArrowRight: (far) => cursor.move(far ? FAR : 1),
    Home: () => cursor.toFirst(),
    End: () => cursor.toLast(),
    '+': () => cursor.zoom('in'),
    '=': () => cursor.zoom('in'),
    '-': () => cursor.zoom('out'),
    Escape: () => cursor.hide(),
  }
  element.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return
    event.preventDefault()
    keys[event.key](event.shiftKey)
  })
  element.addEventListener('blur', () => cursor.hide())
}
