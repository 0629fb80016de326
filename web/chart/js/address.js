// @ts-check
/** The page's state in its address: `#/market/<id>/<interval>?open=previous`. */

/**
 * @typedef {'exchange' | 'continuous'} OpenMode
 * @typedef {{market: string, interval: string, openMode: OpenMode | null}} Place  Null: the address does not say.
 */

/** Words of the address for how a candle opens. @type {Map<string | null, OpenMode>} */
const OPENS = new Map([['first', 'exchange'], ['previous', 'continuous']])

/**
 * Reads an address; what it does not say, or says wrongly, is empty.
 * @param {string} hash
 * @returns {Place}
 */
export function readAddress(hash) {
  const [path, query = ''] = hash.replace(/^#/, '').split('?')
  const [, kind, id = '', interval = ''] = path.split('/')
  const openMode = OPENS.get(new URLSearchParams(query).get('open')) ?? null
  if (kind !== 'market') return { market: '', interval: '', openMode }
  try {
    return { market: decodeURIComponent(id), interval, openMode }
  } catch { // a stray percent sign
    return { market: '', interval: '', openMode }
  }
}

/** The address of a market, or of one view of it. @param {string} market @param {string} [interval] @param {OpenMode} [openMode] */
export function writeAddress(market, interval = '', openMode = 'exchange') {
  const path = `#/market/${encodeURIComponent(market)}${interval && `/${interval}`}`
  return openMode === 'continuous' ? `${path}?open=previous` : path
}
