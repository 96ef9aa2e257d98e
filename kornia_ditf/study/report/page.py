"""The report of a study as a self-contained HTML page, Markdown and LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_ditf.errors import StudyError
from kornia_ditf.metrics.statistics import Interval
from kornia_ditf.study.define.listing import dataset_labels
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.report import charts
from kornia_ditf.study.report.analysis import FEW_PAIRS, Section, analyse
from kornia_ditf.study.report.pictures import PairPicture, draw_pairs
from kornia_ditf.study.run.summary import read_summary
from kornia_ditf.study.store.cache import DamagedFileError
from kornia_ditf.study.store.folder import refuse_links
from kornia_ditf.study.store.records import RECORDS, check_records
from kornia_ditf.utils.files import atomic_write
from kornia_ditf.utils.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

FILES = {
    "report.html": "report.html.j2",
    "report.md": "report.md.j2",
    "tables.tex": "tables.tex.j2",
}
_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
_TEX |= {each: f"\\{each}" for each in "&%$#_{}"}
_TEX |= {each: f"{{{each}}}" for each in "[]*"}  # which a \\ before them would take for its own
_MARKDOWN = re.compile(
    r"[\\`*_{}\[\]|~$]|<(?=[A-Za-z/!?])|^[>#]|&(?=#?\w+;)|:(?=//)|(?<=www)\."
    r"|^[-+](?=\s)|(?:(?<=^\d)|(?<=^\d\d)|(?<=^\d{3}))[.)](?=\s)"
)
_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Shown:
    """A section with its charts and pictures, as data URIs.

    Args:
        section: its tables.
        kinds: of its scores, with how many columns each has.
        charts: heading and image of each chart.
        shown: label of the configuration whose pairs are drawn: the best one.
        pictures: of its best and worst pairs.
    """

    section: Section
    kinds: tuple[tuple[str, int], ...]
    charts: tuple[tuple[str, str], ...]
    shown: str
    pictures: tuple[PairPicture, ...]


def write_report(out: Path) -> list[Path]:
    """Write report.html, report.md and tables.tex into a study's folder.

    Args:
        out: the folder of a study that has run.

    Returns:
        the files.

    Raises:
        StudyError: the folder holds no finished study, or its records are damaged.
        OutputError: a file cannot be written.
    """
    summary = read_summary(out)
    refuse_links(out)
    try:
        digest = check_records(out / RECORDS)
    except DamagedFileError as error:
        raise StudyError(f"{error}; run the study again, it will be put together anew") from error
    if digest != summary["records"]:
        raise StudyError(f"the last run in {out} was stopped before its end; run it again")
    sections = [_show(out, section, summary) for section in analyse(out, summary)]
    told = {
        "summary": summary,
        "study": summary["study"],
        "sections": sections,
        "configurations": _configurations(summary),
        "few": FEW_PAIRS,
    }
    written = []
    for name, template in FILES.items():
        text = _environment(_FINALIZE[name]).get_template(template).render(told)
        with atomic_write(out / name) as temporary:
            temporary.write_text(text, "utf-8")
        written.append(out / name)
    return written


def _show(out: Path, section: Section, summary: Mapping[str, Any]) -> Shown:
    best = max(section.rows, key=lambda row: row.values[0].value).descriptor
    drawn: list[tuple[str, str | None]] = [
        ("Scores at a glance", charts.draw_scores(section)),
        ("Over blocks", charts.draw_curves(section, "block")),
        ("Over timesteps", charts.draw_curves(section, "timestep")),
        (
            "Accuracy against time",
            charts.draw_cost(
                section, lambda row: row.cost.seconds_per_image, "seconds per image, described"
            ),
        ),
        (
            "Accuracy against memory",
            charts.draw_cost(
                section, lambda row: row.experiment["bytes_held"] / 1e9, "GB of weights held"
            ),
        ),
    ]
    study = Study.model_validate(summary["study"])
    pictures = draw_pairs(
        out / RECORDS,
        {"descriptor": best, "dataset": section.dataset, "protocol": section.protocol["name"]},
        study.datasets[dataset_labels(study).index(section.dataset)],
        study.report.pictures,
        upright=section.protocol["fit"]["upright"],
    )
    kinds = tuple(
        (kind, len(list(scores))) for kind, scores in groupby(section.scores, lambda s: s.kind)
    )
    kept = tuple((heading, image) for heading, image in drawn if image is not None)
    return Shown(section, kinds, kept, best, tuple(pictures))


def _configurations(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List configurations, once for each data set on which they differ."""
    found: dict[str, Mapping[str, Any]] = {}
    for experiment in summary["experiments"]:
        found.setdefault(experiment["identity"], experiment)
    return list(found.values())


def _plain(value: Any) -> Any:
    """Put text on one line without control characters; HTML is escaped afterwards."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return printable(_BREAKS.sub(" ", value)) if is_text else value


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


def _environment(finalize: Callable[[Any], Any]) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("kornia_ditf.study.report"),
        autoescape=finalize is _plain,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "interval": show_interval,
        "p": show_p,
        "breakable": _breakable,
    }
    environment.globals["shade"] = charts.shade
    return environment


def _breakable(label: str) -> Any:
    from markupsafe import Markup, escape

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
