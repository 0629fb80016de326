// @ts-check
/** What the page remembers between visits, where the browser lets it. */

/** @param {string} key */
export const recall = (key) => { try { return localStorage.getItem(key) } catch { return null } }

/** An empty value forgets. @param {string} key @param {string} value */
export function remember(key, value) {
  try {
    if (value) localStorage.setItem(key, value)
    else localStorage.removeItem(key)
  } catch { /* storage is blocked */ }
}
