"""What can be measured of a page's accessibility: rules of axe-core, contrast and sizes as computed."""

from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page

AXE: Final = Path(__file__).parents[2] / "web/backend/node_modules/axe-core/axe.min.js"
RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
TEXT_MIN: Final = 4.5  # WCAG 2.2, 1.4.3
GRAPHICS_MIN: Final = 3.0  # WCAG 2.2, 1.4.11
TARGET_MIN: Final = 24  # pixels; WCAG 2.2, 2.5.8

CONTRAST: Final = r"""() => {
  const probe = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true })
  const rgba = (css) => {
    probe.clearRect(0, 0, 1, 1)
    probe.fillStyle = css
    probe.fillRect(0, 0, 1, 1)
    const [r, g, b, a] = probe.getImageData(0, 0, 1, 1).data
    return [r, g, b, a / 255]
  }
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1]
  const light = (rgb) => {
    const linear = (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    const [r, g, b] = rgb.map((part) => linear(part / 255))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const ratio = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y)
    return (high + 0.05) / (low + 0.05)
  }
  const ancestors = (element) => {
    const found = []
    for (let at = element; at; at = at.parentElement) found.unshift(at)
    return found
  }
  // Every colour that may lie behind an element: a gradient may show any of its stops.
  const grounds = (element) => ancestors(element).reduce((behind, at) => {
    const { backgroundColor, backgroundImage } = getComputedStyle(at)
    const stops = backgroundImage.match(/rgba?\([^)]*\)/g) ?? []
    const solid = behind.map((ground) => over(rgba(backgroundColor), ground))
    return stops.length ? solid.flatMap((ground) => stops.map((stop) => over(rgba(stop), ground))) : solid
  }, [[255, 255, 255, 1]])
  const style = getComputedStyle(document.documentElement)
  const panel = rgba(style.getPropertyValue('--panel'))
  const found = []
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())
    const words = own || (element.matches('input') && element.placeholder)
    if (!words || element.closest('[aria-hidden=true], .sr-only, noscript')) continue
    if (!element.checkVisibility({ visibilityProperty: true })) continue
    const part = element.matches('input') ? '::placeholder' : null
    const [r, g, b, a] = rgba(getComputedStyle(element, part).color)
    const seen = ancestors(element).reduce((product, at) => product * Number(getComputedStyle(at).opacity), a)
    const worst = Math.min(...grounds(element).map((ground) => ratio(over([r, g, b, seen], ground), ground)))
    const name = `${element.tagName}.${element.className}#${element.id} ${element.textContent.slice(0, 24)}`
    found.push([name, worst, 'text'])
  }
  const drawn = { '--muted': 'text', '--up': 'graphics', '--down': 'graphics', '--accent': 'graphics' }
  for (const [name, kind] of Object.entries(drawn)) {
    found.push([`${name} in the chart`, ratio(rgba(style.getPropertyValue(name)), panel), kind])
  }
  // The chart library writes black on what is bright by this measure, else white.
  for (const name of ['--up-mark', '--down-mark']) {
    const [r, g, b] = rgba(style.getPropertyValue(name))
    const text = 0.199 * r + 0.687 * g + 0.114 * b > 160 ? [0, 0, 0] : [255, 255, 255]
    found.push([`the last price on ${name}`, ratio(text, [r, g, b]), 'text'])
  }
  return found
}"""

TARGETS: Final = """() => [...document.querySelectorAll('button, input, [tabindex="0"], li a')]
  .filter((element) => element.checkVisibility({ visibilityProperty: true }))
  .map((element) => [element.id || element.textContent.trim(), element.closest('label') ?? element])
  .map(([name, element]) => [name, element.getBoundingClientRect()])
  .map(([name, { width, height }]) => [name, Math.min(width, height)])"""


def violations(page: Page) -> list[str]:
    """What axe-core finds, one line an element."""
    page.evaluate(AXE.read_text())
    found: Any = page.evaluate(
        "rules => axe.run(document, { runOnly: rules, resultTypes: ['violations'] })", list(RULES)
    )
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def faint(page: Page) -> list[str]:
    """Texts and figures whose contrast is too low."""
    least = {"text": TEXT_MIN, "graphics": GRAPHICS_MIN}
    measured: Any = page.evaluate(CONTRAST)
    assert len(measured) > len(least)
    return [f"{name} has {ratio:.2f}" for name, ratio, kind in measured if ratio < least[kind]]


def tiny(page: Page) -> list[str]:
    """What is too small to be hit."""
    measured: Any = page.evaluate(TARGETS)
    assert measured
    return [f"{name!r} has {size:.1f}" for name, size in measured if size < TARGET_MIN]
