"""Charts as inline SVG: geometry in, markup out; nothing to load and nothing a Content-Security-Policy must allow.

Positions along x are percentages of whatever width the page gives, heights are pixels: a chart is as wide as its column while its text keeps its size.
Colours and strokes are classes (`c1` … `c8`, `m1` … for shapes) that the style sheet fills in for light, dark and paper. Text is always escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

COLOURS = 8
WIDTH = 264
"""The width of a plot on a phone in pixels, for placing labels alone: what is clear here is clear on a wider page too. A label that has no room here
is shown on wider pages only (`roomy`); the table beside has the same marks.
"""
MARGIN = (10.0, 26.0)
"""Pixels beside a plot that are still the chart's, left and right."""
LABEL = 34
NAMED = 4
"""Curves that are named in the chart; of more the names would hide the curves, and the table beside has the same marks."""
PLACES = ((9, 4, ""), (-9, 4, "end"), (0, -10, "mid"), (0, 19, "mid"), (9, -8, ""), (-9, -8, "end"), (9, 16, ""), (-9, 16, "end"), (12, -22, ""), (12, 30, ""))


@dataclass(frozen=True)
class Series:
    """One curve of `distribution`: a share (0..1, rising) at each value."""

    name: str
    values: Sequence[float]
    shares: Sequence[float]
    colour: int = 1


@dataclass(frozen=True)
class Point:
    """One cell of `scatter`; the spans are its interval on each axis. A dominated point is hollow and faded."""

    name: str
    x: float
    y: float
    x_span: tuple[float, float] | None = None
    y_span: tuple[float, float] | None = None
    colour: int = 1
    dominated: bool = False
    tip: str = ""


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high`, linear or logarithmic, with its round ticks and how to write them."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Where `value` stands, 0..100, kept inside the axis."""
        low, high, here = (math.log(v) for v in (self.low, self.high, max(value, self.low))) if self.log else (self.low, self.high, value)
        return min(max((here - low) / (high - low), 0.0), 1.0) * 100


def colour_of(index: int) -> int:
    """The palette's colour number for the `index`-th series; beyond the palette it starts again, and name and shape tell them apart."""
    return index % COLOURS + 1


def linear_axis(low: float, high: float, *, count: int = 5, clip: tuple[float, float] | None = None) -> Axis:
    """Round ticks (1, 2, 2.5 or 5 × 10^k) that span `low` to `high`; `clip` bounds the axis, as 0..1 does a share."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - max(abs(low) * 0.1, 0.5), high + max(abs(high) * 0.1, 0.5)
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if clip:
        first, last = max(first, math.ceil(clip[0] / step - 1e-9)), min(last, math.floor(clip[1] / step + 1e-9))
    digits = max(0, -math.floor(math.log10(step) + 1e-9) + (1 if round(step / unit, 1) == 2.5 else 0))
    ticks = tuple((k * step, f"{k * step:,.{digits}f}") for k in range(first, last + 1))
    return Axis(first * step, last * step, ticks)


def log_axis(low: float, high: float) -> Axis:
    """Ticks at 1, 2 and 5 × 10^k while they fit, else at powers of ten. `low` must be positive."""
    if high <= low * 1.05:
        low, high = low / 1.5, high * 1.5
    start, stop = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades <= 2.2 else (1, 3) if decades <= 3.2 else (1,)
    marks = [m * 10.0**k for k in range(start, stop + 1) for m in steps]
    lowest = max((m for m in marks if m <= low * 1.001), default=low)
    highest = min((m for m in marks if m >= high * 0.999), default=high)
    return Axis(lowest, highest, tuple((m, _plain(m)) for m in marks if lowest <= m <= highest), log=True)


def distribution(series: Sequence[Series], *, unit: str, height: int = 220) -> Markup:
    """Empirical distribution functions over a log axis: how many of the requests took at most this long."""
    shown = [s for s in series if any(v > 0 for v in s.values)]
    if not shown:
        return Markup()
    axis = log_axis(min(v for s in shown for v in s.values if v > 0), max(max(s.values) for s in shown))
    shares = Axis(0, 1, tuple((p / 100, f"{p} %") for p in (0, 25, 50, 75, 100)))
    curves = [_tag("path", d=_curve(s, axis), class_=f"curve c{s.colour} d{(s.colour - 1) % 4}") for s in shown]
    box = _tag("svg", _join(curves), viewBox="0 0 1000 1000", preserveAspectRatio="none", width="100%", height=height, class_="stretch")
    marks = [_marker(axis.at(_median(s)), height / 2, s.colour, tip=f"{s.name}: p50 = {_plain(_median(s))} {unit}") for s in shown]
    names = _curve_names(shown, axis, height) if len(shown) <= NAMED else []
    return _frame(_grid(axis, shares, height, unit) + box + _join([*marks, *names]), height)


def scatter(points: Sequence[Point], *, x_unit: str, log_x: bool = False, height: int = 260, reach: Sequence[float] = ()) -> Markup:
    """Points with interval crosses and the Pareto frontier (least x, most y) as a step line; y is a share in percent. The x axis spans `reach`, too."""
    if not points:
        return Markup()
    xs = [v for p in points for v in (p.x, *(p.x_span or ()))] + list(reach)
    ys = [v for p in points for v in (p.y, *(p.y_span or ()))]
    log_x = log_x and min(xs) > 0
    x_axis = log_axis(min(xs), max(xs)) if log_x else linear_axis(min(0.0, *xs), max(xs))
    y_axis = linear_axis(min(ys), max(ys), clip=(0, 100))
    y_axis = Axis(y_axis.low, y_axis.high, tuple((v, f"{text} %") for v, text in y_axis.ticks))
    place = {id(p): (x_axis.at(p.x), height * (1 - y_axis.at(p.y) / 100)) for p in points}
    parts = [_frontier([place[id(p)] for p in points if not p.dominated])]
    for p in points:
        x, y = place[id(p)]
        faded = " faded" if p.dominated else ""
        if p.x_span:
            parts.append(_line(x_axis.at(p.x_span[0]), x_axis.at(p.x_span[1]), y, y, f"cross c{p.colour}{faded}"))
        if p.y_span:
            top, bottom = (height * (1 - y_axis.at(v) / 100) for v in p.y_span)
            parts.append(_line(x, x, top, bottom, f"cross c{p.colour}{faded}"))
    parts += [_marker(*place[id(p)], p.colour, hollow=p.dominated, tip=p.tip or p.name) for p in points]
    parts += _labels([(p.name, *place[id(p)], p.dominated) for p in points], height)
    return _frame(_grid(x_axis, y_axis, height, x_unit) + _join(parts), height)


def interval(
    mid: float | None, span: tuple[float, float] | None, axis: Axis, *, colour: int = 1, tip: str = "", bounds: tuple[float, float] | None = None
) -> Markup:
    """One row of a dot-and-interval plot: the estimate as a dot, its interval as a line with ends, `bounds` as a pale band, over the axis's ticks."""
    height = 22
    parts = [_line(axis.at(v), axis.at(v), 0, height, "grid") for v, _ in axis.ticks]
    if bounds:
        left, right = (axis.at(v) for v in bounds)
        parts.append(_tag("rect", x=_pc(left), y=5, width=_pc(right - left), height=12, class_=f"band c{colour}"))
    if span:
        low, high = (axis.at(v) for v in span)
        parts += [_line(low, high, 11, 11, f"span c{colour}"), _line(low, low, 7, 15, f"cap c{colour}"), _line(high, high, 7, 15, f"cap c{colour}")]
    if mid is not None:
        parts.append(_marker(axis.at(mid), 11, colour, tip=tip))
    return _tag("svg", _join(parts), width="100%", height=height, class_="row-chart", aria_hidden="true")


def ticks(axis: Axis, *, most: int = 7) -> Markup:
    """The axis of a column of `interval` rows; of many ticks at most `most` are written, the last always."""
    shown = axis.ticks[:: -math.ceil(len(axis.ticks) / most)]
    texts = [_tag("text", text, x=_pc(axis.at(v)), y=10, class_="tick mid") for v, text in shown]
    return _tag("svg", _join(texts), width="100%", height=14, class_="row-chart", aria_hidden="true")


def stack(parts: Iterable[tuple[str, float, str]], *, height: int = 14) -> Markup:
    """One stacked bar of the full width: (class, amount, tip) from left to right; a thin gap keeps neighbours apart without colour."""
    known = [(name, amount, tip) for name, amount, tip in parts if amount > 0]
    total = sum(amount for _, amount, _ in known)
    bars, left = [], 0.0
    for name, amount, tip in known:
        width = amount / total * 100
        bars.append(_tag("rect", x=_pc(left), y=0, width=_pc(width - min(0.5, width / 3)), height=height, class_=f"bar {name}", data_tip=tip))
        left += width
    return _tag("svg", _join(bars), width="100%", height=height, class_="row-chart bars", aria_hidden="true")


def columns(bars: Sequence[tuple[float, Sequence[tuple[str, float]]]], *, width: float, unit: str, height: int = 110) -> Markup:
    """Stacked columns over time: (start, [(class, amount)]) from the bottom up, each `width` wide."""
    end = max(start for start, _ in bars) + width
    x_axis, y_axis = linear_axis(0, end), linear_axis(0, max(sum(n for _, n in parts) for _, parts in bars), count=3)
    drawn = []
    for start, parts in bars:
        base, left = 0.0, x_axis.at(start)
        wide = max(x_axis.at(start + width) - left - 0.15, 0.2)
        for name, amount in parts:
            top = y_axis.at(base + amount) / 100 * height
            low = y_axis.at(base) / 100 * height
            drawn.append(_tag("rect", x=_pc(left), y=f"{height - top:.1f}", width=_pc(wide), height=f"{top - low:.1f}", class_=f"bar {name}"))
            base += amount
    return _frame(_grid(x_axis, y_axis, height, unit) + _join(drawn), height)


def key(name: str) -> Markup:
    """A small square of a bar's colour, for legends and tables."""
    return _tag("svg", _tag("rect", x=0, y=0, width=10, height=10, rx=2, class_=f"bar {name}"), width=10, height=10, class_="key", aria_hidden="true")


def swatch(colour: int, *, hollow: bool = False) -> Markup:
    """The mark of a series as it stands in the charts, for tables and legends."""
    return _tag("svg", _marker(None, 7, colour, hollow=hollow), width=14, height=14, class_="swatch", aria_hidden="true")


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each (cost, quality): whether another point is at least as good on both and better on one."""
    return [any(cx <= x and cy >= y and (cx < x or cy > y) for cx, cy in points) for x, y in points]


# --- drawing ---


def _tag(name: str, content: str = "", **attributes: object) -> Markup:
    """An element; `class_`, `aria_x` and `data_x` lose their underscores. Values and text are escaped unless already markup; empty ones are left out."""
    written = "".join(f' {_attribute(key)}="{escape(value)}"' for key, value in attributes.items() if value not in ("", None))
    return Markup(f"<{name}{written}>{escape(content)}</{name}>")  # noqa: S704 - every value and text above went through escape


def _attribute(key: str) -> str:
    return key.removesuffix("_").replace("_", "-") if key.endswith("_") or key.startswith(("aria_", "data_")) else key


def _join(parts: Iterable[str]) -> Markup:
    return Markup().join(parts)


def _pc(value: float) -> str:
    return f"{value:.2f}%"


def _line(x1: float, x2: float, y1: float, y2: float, name: str) -> Markup:
    return _tag("line", x1=_pc(x1), x2=_pc(x2), y1=f"{y1:.1f}", y2=f"{y2:.1f}", class_=name)


def _frame(content: Markup, height: int) -> Markup:
    return _tag("div", _tag("svg", content, width="100%", height=height, class_="plot", aria_hidden="true"), class_="chart")


def _grid(x: Axis, y: Axis, height: int, unit: str) -> Markup:
    parts: list[Markup] = []
    for value, text in y.ticks:
        top = height * (1 - y.at(value) / 100)
        parts += [_line(0, 100, top, top, "grid"), _tag("text", text, x=0, y=f"{top:.1f}", dx=-8, dy="0.35em", class_="tick end")]
    for value, text in x.ticks:
        label = _tag("text", text, x=_pc(x.at(value)), y=height, dy=18, class_="tick mid")
        parts += [_line(x.at(value), x.at(value), 0, height, "grid"), label]
    parts.append(_tag("text", unit, x="100%", y=height, dy=34, class_="tick end unit"))
    return _join(parts)


SHAPES: Mapping[int, str] = {
    0: "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    1: "M-4 -4h8v8h-8z",
    2: "M0 -5.4L5.2 3.8H-5.2z",
    3: "M0 -5.6L5.6 0L0 5.6L-5.6 0z",
}


def _marker(x: float | None, y: float, colour: int, *, hollow: bool = False, tip: str = "") -> Markup:
    """A shape beside the colour: four shapes, so that neither alone must tell series apart. `x` None: in the middle of a swatch."""
    shape = _tag("path", d=SHAPES[(colour - 1) % len(SHAPES)], class_=f"dot c{colour}{' hollow' if hollow else ''}", data_tip=tip)
    return _tag("svg", shape, x="7" if x is None else _pc(x), y=f"{y:.1f}", overflow="visible")


def _frontier(places: Sequence[tuple[float, float]]) -> Markup:
    ordered = sorted(places)
    lines = []
    for (x1, y1), (x2, y2) in pairwise(ordered):
        lines += [_line(x1, x2, y1, y1, "frontier"), _line(x2, x2, y1, y2, "frontier")]
    return _join(lines)


def _labels(points: Sequence[tuple[str, float, float, bool]], height: int) -> list[Markup]:
    """Direct labels where they meet neither a point nor another label: right, left, above, below, then further off."""
    taken = [(x * WIDTH / 100 - 7, y - 7, x * WIDTH / 100 + 7, y + 7) for _, x, y, _ in points]
    parts = []
    for name, x, y, faded in sorted(points, key=lambda p: (p[3], p[2])):
        short = name if len(name) <= LABEL else f"{name[: LABEL - 1]}…"
        wide = _wide(short)
        boxes = [(dx, dy, side, _box(x * WIDTH / 100, y, wide, (dx, dy, side))) for dx, dy, side in PLACES]
        dx, dy, side, box = min(boxes, key=lambda one: sum(_overlap(one[3], other) for other in taken) + _outside(one[3], height))
        taken.append(box)
        name_class = " ".join(part for part in ("label", side, "faded" if faded else "", _roomy(box[0], box[2])) if part)
        parts.append(_tag("text", short, x=_pc(x), y=f"{y:.1f}", dx=dx, dy=dy, class_=name_class))
    return parts


def _wide(text: str) -> float:
    """Pixels of a label, about."""
    return sum(6.4 if ord(letter) < 0x2E80 else 12.5 for letter in text)


def _roomy(left: float, right: float) -> str:
    return "" if left >= -MARGIN[0] and right <= WIDTH + MARGIN[1] else "roomy"


Box = tuple[float, float, float, float]


def _box(x: float, y: float, wide: float, place: tuple[int, int, str]) -> Box:
    dx, dy, side = place
    left = x + dx - {"": 0.0, "mid": wide / 2, "end": wide}[side]
    return left, y + dy - 11, left + wide, y + dy + 3


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: Box, height: int) -> float:
    return 50 * (max(0.0, -box[0]) + max(0.0, box[2] - WIDTH) + max(0.0, 4 - box[1]) + max(0.0, box[3] - height))


def _curve(series: Series, axis: Axis) -> str:
    """A path in a 1000 × 1000 box, from the bottom at the least value to the top at the greatest, and on along it."""
    points = [f"{axis.at(value) * 10:.1f} {1000 - share * 1000:.1f}" for value, share in zip(series.values, series.shares, strict=True)]
    return f"M{'L'.join(points)}H1000"


def _curve_names(shown: Sequence[Series], axis: Axis, height: int) -> list[Markup]:
    """Each name beside its curve: the quickest to the left near the top, the slowest to the right near the bottom, the others between."""
    parts = []
    for k, series in enumerate(sorted(shown, key=_median)):
        level = 0.85 - 0.7 * k / (len(shown) - 1) if len(shown) > 1 else 0.3
        x = axis.at(next((v for v, share in zip(series.values, series.shares, strict=True) if share >= level), series.values[-1]))
        left = x > 62 or (k == 0 and x > 25)
        text = series.name if len(series.name) <= LABEL else f"{series.name[: LABEL - 1]}…"
        start = x * WIDTH / 100 + (-8 - _wide(text) if left else 8)
        name_class = " ".join(part for part in ("label", "end" if left else "", _roomy(start, start + _wide(text))) if part)
        parts.append(_tag("text", text, x=_pc(x), y=f"{height * (1 - level):.1f}", dx=-8 if left else 8, dy="0.35em", class_=name_class))
    return parts


def _median(series: Series) -> float:
    return next((v for v, share in zip(series.values, series.shares, strict=True) if share >= 0.5), series.values[-1])


def _plain(value: float) -> str:
    """A short number: at most three significant digits, thousands with a comma."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
