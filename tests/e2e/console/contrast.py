"""How well a text can be read: what the browser has computed, as WCAG 2.2 counts it."""

from __future__ import annotations

from playwright.sync_api import Locator

LEAST = 4.5  # of normal text (WCAG 2.2, 1.4.3)

_RATIO = """element => {
    const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const grounds = [];
    for (let at = element; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
    const painted = (...colours) => {
        for (const colour of ["#fff", ...grounds, ...colours]) {
            pen.fillStyle = colour;
            pen.fillRect(0, 0, 1, 1);
        }
        return pen.getImageData(0, 0, 1, 1).data;
    };
    const light = ([red, green, blue]) => [red, green, blue]
        .map(part => part / 255)
        .map(part => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
    const both = [light(painted()), light(painted(getComputedStyle(element).color))];
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}"""


def contrast(text: Locator) -> float:
    """Between a text and what it stands on, from 1 to 21."""
    return float(text.evaluate(_RATIO))
