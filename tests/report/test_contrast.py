"""All text on pages has a contrast of 4.5:1 or more on what it stands on, light and dark."""

import re
from importlib.resources import files

import pytest

from shadowsim.plots import comparison, style, time_axis

CSS = (files("shadowsim.report") / "report.css").read_text("utf-8")
LEAST = 4.5  # WCAG 2.2, 1.4.3, for text of any size
# What each colour of text stands on; "panel" is that of code.
GROUNDS = {
    "ink": ["ground", "panel", "good-ground", "bad-ground", "unsure-ground", "plain-ground"],
    "quiet": ["ground"],
    "link": ["ground"],
    "good": ["good-ground"],
    "bad": ["bad-ground", "ground"],
    "unsure": ["unsure-ground"],
    "plain": ["plain-ground"],
    "source": ["ground"],
    "shadow": ["ground"],
}


def themes():
    """Return the variables of the style sheet by theme."""
    light, dark = re.findall(r":root \{\s*color-scheme: \w+;(.*?)\}", CSS, re.DOTALL)
    return {name: dict(re.findall(r"--([\w-]+): (#\w{6})", text)) for name, text in (("light", light), ("dark", dark))}


def luminance(colour):
    """Return the relative luminance of #rrggbb, as WCAG defines it."""
    channels = [int(colour[i : i + 2], 16) / 255.0 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(text, ground):
    high, low = sorted((luminance(text), luminance(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def over(colour, ground):
    """Return what a translucent colour looks like on a ground."""
    *rgb, alpha = (float(x) for x in re.findall(r"[\d.]+", colour))
    below = [int(ground[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(alpha * c + (1.0 - alpha) * b):02x}" for c, b in zip(rgb, below, strict=True))


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the grey that just fails


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_of_a_page_can_be_read(theme):
    colours = themes()[theme]
    for text, grounds in GROUNDS.items():
        for ground in grounds:
            assert contrast(colours[text], colours[ground]) >= LEAST, (text, ground)


def test_every_colour_of_text_in_the_style_sheet_is_among_those():
    assert set(re.findall(r"(?<![-\w])color: (?!light|dark)(.*?);", CSS)) <= {f"var(--{name})" for name in GROUNDS}
    assert set(themes()["light"]) == set(themes()["dark"])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_of_a_figure_can_be_read(theme):
    ground = themes()[theme]["ground"]
    swapped = {key.lower(): value for key, value in style.DARK.items()} if theme == "dark" else {}
    texts = [style.INK, style.GREY, *style.TEXTS.values(), style.SHADE_TEXT, "#2a3f5f"]  # the last is Plotly's own
    for text in texts:
        assert contrast(swapped.get(text.lower(), text), ground) >= LEAST, text
    shaded = over(style.SHADE, ground)  # the word OVERLOADED stands on it
    assert contrast(swapped.get(style.SHADE_TEXT.lower(), style.SHADE_TEXT), shaded) >= LEAST


def test_every_colour_that_figures_share_has_another_on_a_dark_screen():
    shared = [
        *style.COLOURS.values(),
        *style.BANDS.values(),
        *style.TEXTS.values(),
        style.INK,
        style.GREY,
        style.MARGIN,
    ]
    shared += [colour for colour, _, _ in comparison.OUTCOME_STYLES.values()] + [time_axis.SHADE_TEXT]
    assert set(shared) <= set(style.DARK)
    # marks need 3:1 (1.4.11)
    for light, dark in style.DARK.items():
        if light in (*style.COLOURS.values(), *(colour for colour, _, _ in comparison.OUTCOME_STYLES.values())):
            assert contrast(dark, themes()["dark"]["ground"]) >= 3.0
