// @ts-check
/** Scrolling back: older candles are read before the left edge is reached, until there are none. */

import { note } from './dom.js'
import { dateTime } from './format.js'

const BARS_MAX = 50_000
const AHEAD_BARS = 60 // older candles are read when so few are left of what is seen
const EDGE_BARS = 3 // the first candle counts as reached this close to it
const RETRY_MS = 2_000

/** @typedef {import('./bars.js').Candle} Candle */

/**
 * @param {import('/vendor/lightweight-charts.mjs').IChartApi} chart
 * @param {object} options
 * @param {HTMLElement} options.element  Says what is left of the first candle.
 * @param {number} options.page  Candles in a full answer.
 * @param {(oldest: number) => Promise<Candle[]>} options.load  Candles before a time, oldest first.
 * @param {() => Candle[]} options.rows  What is shown, oldest first.
 * @param {(found: Candle[]) => void} options.prepend
 */
export function createOlder(chart, { element, page, load, rows, prepend }) {
  let more = true
  let loading = false
  let failed = false
  let generation = 0
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer

  function describe() {
    const range = chart.timeScale().getVisibleLogicalRange()
    const atEdge = range !== null && range.from <= EDGE_BARS
    const [first] = rows()
    if (!first || (!atEdge && !failed)) note(element, '')
    else if (failed) note(element, 'Older candles cannot be read', 'Trying again.')
    else if (rows().length >= BARS_MAX) note(element, 'No more fit in here', 'Choose a longer interval.')
    else if (loading || more) note(element, 'Loading older candles')
    else note(element, 'First candle', dateTime(first.t))
  }

  /** Reads one page, if what is seen comes near the left edge. */
  async function look() {
    describe()
    const range = chart.timeScale().getVisibleLogicalRange()
    const [first] = rows()
    if (!range || range.from > AHEAD_BARS || loading || failed || !more || !first || rows().length >= BARS_MAX) return
    loading = true
    const mine = generation
    try {
      const found = await load(first.t)
      if (mine !== generation) return
      more = found.length >= page
      const [oldest] = rows()
      const fresh = found.filter(({ t }) => !oldest || t < oldest.t)
      if (fresh.length) prepend(fresh)
    } catch {
      if (mine !== generation) return
      failed = true
      timer = setTimeout(() => {
        failed = false
        look()
      }, RETRY_MS)
    } finally {
      if (mine === generation) {
        loading = false
        describe()
        requestAnimationFrame(look) // once the chart has moved: perhaps a page was not enough
      }
    }
  }

  chart.timeScale().subscribeVisibleLogicalRangeChange(look)

  return {
    look,
    /** May there be candles before the first one? */
    get more() { return more },

    /** What was asked for no longer counts. @param {boolean} mayHaveMore */
    restart(mayHaveMore) {
      clearTimeout(timer)
      generation += 1
      more = mayHaveMore
      loading = false
      failed = false
    },
  }
}
