// @ts-check
/** Small helpers around the document. */

import { price } from './format.js'

/** @param {string} id @returns {any} */
export const byId = (id) => {
  const element = document.getElementById(id)
  if (!element) throw new Error(`#${id} is missing`)
  return element
}

/**
 * @param {string} tag
 * @param {string} [className]
 * @param {string} [text]
 */
export function make(tag, className = '', text = '') {
  const element = document.createElement(tag)
  if (className) element.className = className
  if (text) element.textContent = text
  return element
}

/** Sets text only when it changes. @param {HTMLElement} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

/**
 * Shows a price, with the exact decimal as its title and accessible name.
 * @param {HTMLElement} element
 * @param {string | undefined} exact
 * @param {boolean} [pad]  Keep trailing zeros, where prices stand in a column.
 */
export function showPrice(element, exact, pad = false) {
  setText(element, price(exact, 4, pad))
  if (!exact || element.title === exact) return
  element.title = exact
  element.setAttribute('role', 'img')
  element.setAttribute('aria-label', exact)
}

/** Plays a short colour flash. @param {HTMLElement} element @param {string} name */
export function flash(element, name) {
  element.classList.remove('flash-up', 'flash-down')
  void element.offsetWidth // restarts the animation
  element.classList.add(`flash-${name}`)
}

/**
 * An avatar drawn from the market's id and symbol.
 * @param {HTMLElement} element @param {string} id @param {string} symbol
 */
export function paintAvatar(element, id, symbol) {
  let hash = 0
  for (const char of id) hash = (hash * 31 + char.charCodeAt(0)) >>> 0
  const hue = hash % 360
  element.style.background = `linear-gradient(135deg, hsl(${hue} 68% 48%), hsl(${(hue + 50 + (hash >> 9) % 60) % 360} 72% 34%))`
  setText(element, [...symbol].slice(0, 2).join('').toUpperCase())
}

/** Marks one button of a group. @param {HTMLElement} group @param {(button: HTMLElement) => boolean} isOn */
export function press(group, isOn) {
  for (const button of group.querySelectorAll('button')) button.setAttribute('aria-pressed', String(isOn(button)))
}

/**
 * Fills a note; an empty text hides it.
 * @param {HTMLElement} element
 * @param {string} title
 * @param {string} [text]
 * @param {() => void} [retry]
 */
export function note(element, title, text = '', retry) {
  element.hidden = !title
  element.replaceChildren()
  if (!title) return
  element.append(make('strong', '', title))
  if (text) element.append(make('span', '', text))
  if (retry) {
    const button = make('button', 'retry', 'Try again')
    button.setAttribute('type', 'button')
    button.addEventListener('click', retry)
    element.append(button)
  }
}
