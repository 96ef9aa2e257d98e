"""SVG charts of a section, as data URIs."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any

from kornia_ditf.metrics.statistics import Interval
from kornia_ditf.study.report.analysis import Curve, Row, Section
from kornia_ditf.utils.text import printable

# Okabe and Ito's colours, which colour-blind readers tell apart, and a marker for each.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
_MARKERS = "osD^vPX"
_WIDTH = 4.6  # inches: read at its own size on a telephone, and three in a row on a desk
_MOST_LINES = 14


def draw_scores(section: Section) -> str:
    """Draw the first score of every configuration with its interval, best at the top."""
    rows = sorted(section.rows, key=lambda row: row.values[0].value)

    def draw(axes: Any) -> None:
        for place, row in enumerate(rows):
            _point(axes, 100 * row.values[0].value, place, row.values[0], 0, upright=False)
        axes.set_yticks(range(len(rows)), [_wrap(row.descriptor, 20) for row in rows])
        axes.set_xlabel(f"{section.scores[0].name}, %")
        axes.margins(y=0.5 / max(len(rows), 1))

    return _chart(draw, height=1.0 + 0.4 * len(rows))


def draw_cost(section: Section, cost: Callable[[Row], float | None], label: str) -> str:
    """Draw the first score against a cost.

    Args:
        section: whose rows.
        cost: of a row.
        label: of the axis.
    """
    known = [(row, cost(row)) for row in section.rows]

    def draw(axes: Any) -> None:
        for place, (row, value) in enumerate(known):
            if value:
                first = row.values[0]
                _point(axes, value, 100 * first.value, first, place, label=row.descriptor)
        axes.set_xlabel(label)
        axes.set_ylabel(f"{section.scores[0].name}, %")
        axes.set_xlim(left=0)
        axes.margins(x=0.1)
        axes.locator_params(axis="x", nbins=5)
        _legend(axes, len(known))

    return _chart(draw, height=2.6 + 0.2 * min(len(known), _MOST_LINES))


def draw_lines(curves: Sequence[Curve], x: str, y: str) -> str:
    """Draw curves with their intervals; `x` and `y` are the labels of the axes."""

    def draw(axes: Any) -> None:
        for place, curve in enumerate(curves):
            colour = _COLOURS[place % len(_COLOURS)]
            marker, label = _MARKERS[place % len(_MARKERS)], _wrap(curve.label)
            at = [level for level, _ in curve.points]
            values, low, high = (
                [100 * getattr(value, name) for _, value in curve.points]
                for name in ("value", "low", "high")
            )
            axes.plot(at, values, color=colour, marker=marker, markersize=5, label=label)
            axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if x == "block":
            axes.xaxis.get_major_locator().set_params(integer=True)
        _legend(axes, len(curves))

    return _chart(draw, height=2.6 + 0.2 * min(len(curves), _MOST_LINES))


def _point(
    axes: Any,
    x: float,
    y: float,
    value: Interval,
    place: int,
    *,
    upright: bool = True,
    label: str | None = None,
) -> None:
    around = [
        [max(0.0, 100 * (value.value - value.low))],
        [max(0.0, 100 * (value.high - value.value))],
    ]
    axes.errorbar(
        x,
        y,
        **{"yerr" if upright else "xerr": around},
        color=_COLOURS[place % len(_COLOURS)],
        marker=_MARKERS[place % len(_MARKERS)],
        markersize=6,
        capsize=3,
        linestyle="none",
        label=None if label is None else _wrap(label),
    )


def _legend(axes: Any, lines: int) -> None:
    if lines <= _MOST_LINES:
        axes.figure.legend(loc="outside lower center", frameon=False, fontsize=9.5)


def _chart(draw: Callable[[Any], None], *, height: float) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # With a salt and without a date, the same study gives the same file.
    # Labels are text: a $ in them begins no formula.
    style: Any = {"svg.hashsalt": "kornia_ditf", "font.size": 10.5, "text.parse_math": False}
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.grid(color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def _wrap(label: str, width: int = 40) -> str:
    return "\n".join(printable(line) for line in wrap(label, width))


def shade(value: float, values: Sequence[float]) -> str:
    """Choose a table cell's colour: white to blue between the least and the greatest of values.

    Example:
        >>> shade(1.0, [0.0, 1.0])
        'rgb(86, 160, 211)'
    """
    finite = [each for each in values if each == each]
    if value != value or not finite:
        return "rgb(240, 240, 240)"
    low, high = min(finite), max(finite)
    part = (value - low) / (high - low) if high > low else 0.0
    mixed = (round(255 + part * (goal - 255)) for goal in (86, 160, 211))
    return f"rgb({', '.join(map(str, mixed))})"
