// @ts-check
/** The backend's read API. */

/** Where the backend is: a meta tag of the page, or the page's own origin. */
export const BACKEND = /** @type {HTMLMetaElement | null} */ (document.querySelector('meta[name=backend]'))?.content || location.origin
const TIMEOUT_MS = 10_000

/**
 * @param {string} path
 * @param {Record<string, string | number | undefined>} [query]
 * @returns {Promise<any>}
 */
async function get(path, query = {}) {
  const url = new URL(`/api/${path}`, BACKEND)
  for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, String(value))
  const response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) })
  const body = await response.json().catch(() => ({}))
  if (!response.ok) throw new Error(body.error ?? `the backend answered ${response.status}`)
  return body
}

export const api = {
  config: () => get('config'),
  /** @param {{sort: string, offset: number, limit: number, q?: string}} query */
  markets: (query) => get('markets', query),
  /** @param {string} id @param {{interval: string, before: number, limit: number}} query */
  candles: (id, query) => get(`markets/${encodeURIComponent(id)}/candles`, query),
}
