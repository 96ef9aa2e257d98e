"""The report of a study as a self-contained HTML page, Markdown and LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from kornia_ditf.metrics.statistics import Interval
from kornia_ditf.study.define.listing import dataset_labels
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.report import charts
from kornia_ditf.study.report.analysis import FEW_PAIRS, Section, analyse
from kornia_ditf.study.report.costing import cost_columns, pair_seconds, peak_gigabytes
from kornia_ditf.study.report.exports import bibliography, scores_csv, tests_csv
from kornia_ditf.study.report.levels import level_curves
from kornia_ditf.study.report.pictures import PairImages, draw_pairs
from kornia_ditf.study.report.scores import checking
from kornia_ditf.study.report.viewer import view_pairs
from kornia_ditf.study.run.summary import read_finished
from kornia_ditf.study.store.records import RECORDS
from kornia_ditf.utils.files import atomic_write
from kornia_ditf.utils.text import one_line

_IMAGE_BYTES = 2_000_000  # of the viewer's images, for each table
_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
_TEX |= {each: f"\\{each}" for each in "&%$#_{}"}
_TEX |= {each: f"{{{each}}}" for each in "[]*"}  # which a \\ before them would take for its own
_MARKDOWN = re.compile(
    r"[\\`*_{}\[\]|~$]|<(?=[A-Za-z/!?])|^[>#]|&(?=#?\w+;)|:(?=//)|(?<=www)\."
    r"|^[-+](?=\s)|(?:(?<=^\d)|(?<=^\d\d)|(?<=^\d{3}))[.)](?=\s)"
)


def write_report(out: Path) -> list[Path]:
    """Write the report into a study's folder.

    report.html and report.md; tables.tex, scores.csv and tests.csv, which hold no dates, so that
    equal records give equal tables; and references.bib.

    Args:
        out: the folder of a study that has run.

    Returns:
        the files.

    Raises:
        StudyError: the folder holds no finished study, or its records are damaged.
        OutputError: a file cannot be written.
    """
    summary = read_finished(out)
    sections = analyse(out, summary)
    study = Study.model_validate(summary["study"])
    levels = level_curves(study, sections)
    context = {
        "levels": [(e, charts.draw_lines(e.curves, e.axis, f"{e.score}, %")) for e in levels],
        "summary": summary,
        "study": summary["study"],
        "sections": [_show(out, section, study) for section in sections],
        "configurations": _configurations(summary),
        "unscored": [
            each
            for each in summary.get("failed", ())
            if (each["dataset"], each["protocol"])
            not in {(section.dataset, section.protocol["name"]) for section in sections}
        ],
        "few": FEW_PAIRS,
    }
    texts = {
        name: environment(name).get_template(f"{name}.j2").render(context) for name in _FINALIZE
    } | {
        "scores.csv": scores_csv(sections),
        "tests.csv": tests_csv(sections),
        "references.bib": bibliography(summary),
    }
    return write_texts(out, texts)


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write texts into a folder by their names, and return the files.

    Raises:
        OutputError: one cannot be written.
    """
    for name, text in texts.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text, "utf-8")
    return [folder / name for name in texts]


def _show(out: Path, section: Section, study: Study) -> dict[str, Any]:
    """Return what the templates show of a section: its tables, charts, pictures and viewer."""
    best = max(section.rows, key=lambda row: row.values[0].value)
    score = f"{section.scores[0].name}, %"
    drawn = {"Scores at a glance": charts.draw_scores(section)}
    for heading, setting in (("Over blocks", "block"), ("Over timesteps", "timestep")):
        curves = [curve for curve in section.curves if curve.setting == setting]
        if curves:
            drawn[heading] = charts.draw_lines(curves, setting, score)
    for heading, cost, axis in (
        ("Accuracy against time", pair_seconds, "seconds for a pair of new images"),
        ("Accuracy against memory", peak_gigabytes, "GB, peak of host and device"),
    ):
        if any(cost(row) for row in section.rows):
            drawn[heading] = charts.draw_cost(section, cost, axis)
    images = PairImages(
        study.datasets[dataset_labels(study).index(section.dataset)],
        upright=section.protocol["fit"]["upright"],
        limit_bytes=_IMAGE_BYTES,
    )
    with checking(out / RECORDS, best.experiment):
        pictures = draw_pairs(out / RECORDS, best.experiment, images, study.report.pictures)
        view = view_pairs(out / RECORDS, section, images, study.report.viewer)
    kinds = groupby(section.scores, lambda score: score.kind)
    return {
        "section": section,
        "kinds": [(kind, len(list(scores))) for kind, scores in kinds],
        "charts": drawn,
        "shown": best.descriptor,
        "pictures": pictures,
        "costs": cost_columns(section.rows),
        "view": view,
    }


def _configurations(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List configurations, once for each data set on which they differ."""
    found: dict[str, Mapping[str, Any]] = {}
    for experiment in summary["experiments"]:
        key = f"{experiment['identity']} {experiment['settings'].get('pca')}"
        found.setdefault(key, experiment)
    return list(found.values())


def _plain(value: Any) -> Any:
    """Put text on one line without control characters; HTML is escaped afterwards."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return one_line(value) if is_text else value


def _markdown(value: Any) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", str(_plain(value)))


def _tex(value: Any) -> str:
    return "".join(_TEX.get(each, each) for each in str(_plain(value)))


# What stands between {{ and }} goes through these, so that no template can forget it.
_FINALIZE: dict[str, Callable[[Any], Any]] = {
    "report.html": _plain,
    "report.md": _markdown,
    "tables.tex": _tex,
}


def environment(name: str) -> Environment:
    """Return the templates' environment, which escapes as a file's kind needs."""
    made = Environment(
        loader=PackageLoader("kornia_ditf.study.report"),
        autoescape=name.endswith(".html"),
        finalize=_FINALIZE.get(name, _plain),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "percent": percent,
        "interval": show_interval,
        "p": show_p,
        "breakable": _breakable,
    }
    made.globals["shade"] = charts.shade
    return made


def _breakable(label: str) -> Any:
    return Markup("+<wbr>").join(escape(part) for part in _plain(label).split("+"))


def percent(value: float) -> str:
    """Write a share as a percentage.

    Example:
        >>> percent(0.6713)
        '67.1'
    """
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def show_interval(value: Interval) -> str:
    """Write the two ends of an interval as percentages.

    Example:
        >>> show_interval(Interval(0.5, 0.25, 0.75))
        '25.0 to 75.0'
    """
    return f"{percent(value.low)} to {percent(value.high)}"


def show_p(value: float) -> str:
    """Write a p-value.

    Example:
        >>> show_p(0.00005), show_p(0.0321)
        ('< 0.0001', '0.0321')
    """
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"
