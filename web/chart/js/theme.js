// @ts-check
/** Dark, light, or as the system has it. */

import { byId } from './dom.js'
import { remember } from './storage.js'

/** @typedef {'system' | 'dark' | 'light'} Choice */

/** @param {() => void} onChange  The colours are others now. */
export function createTheme(onChange) {
  const root = document.documentElement
  const button = byId('theme')
  const systemLight = matchMedia('(prefers-color-scheme: light)')
  const ofSystem = () => (systemLight.matches ? 'light' : 'dark')

  /** @returns {Choice} */
  const choice = () => /** @type {Choice} */ (root.dataset.theme ?? 'system')

  /** The first press always changes what is seen, the third follows the system again. @returns {Choice} */
  function next() {
    const other = systemLight.matches ? 'dark' : 'light'
    return choice() === 'system' ? other : choice() === other ? ofSystem() : 'system'
  }

  function paint() {
    const text = `Theme: ${choice()}. Switch to ${next()}`
    button.dataset.choice = choice()
    button.setAttribute('aria-label', text)
    button.title = text
    const colour = getComputedStyle(root).getPropertyValue('--bg').trim()
    document.querySelector('meta[name=theme-color]')?.setAttribute('content', colour)
    onChange()
  }

  function toggle() {
    const wanted = next()
    if (wanted === 'system') delete root.dataset.theme
    else root.dataset.theme = wanted
    remember('theme', wanted === 'system' ? '' : wanted)
    paint()
  }

  button.addEventListener('click', toggle)
  systemLight.addEventListener('change', paint)
  paint()
  return { toggle }
}
