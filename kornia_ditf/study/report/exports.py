"""A study's numbers as CSV, and what to cite as BibTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from importlib.resources import files
from typing import Any

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.errors import DiTFError
from kornia_ditf.registry.lookup import find_descriptor
from kornia_ditf.registry.matchers import find_matcher
from kornia_ditf.study.report.analysis import Section
from kornia_ditf.utils.text import one_line

_ARXIV = re.compile(r"arXiv[ :](\d{4}\.\d{4,5})")
_SCORES = ("dataset", "protocol", "pairs", "descriptor", "score", "value", "low", "high")
_TESTS = (
    *("dataset", "protocol", "score", "first", "second"),
    *("difference", "low", "high", "p", "p_corrected"),
)


def scores_csv(sections: Iterable[Section]) -> str:
    """Return every score with its confidence interval, as shares and not in percent."""
    rows = (
        (s.dataset, s.protocol["name"], s.pairs, row.descriptor, score.name, *astuple(value))
        for s in sections
        for row in s.rows
        for score, value in zip(s.scores, row.values, strict=True)
    )
    return csv_table(_SCORES, rows)


def tests_csv(sections: Iterable[Section]) -> str:
    """Return every comparison with its interval and p-values."""
    rows = (
        (
            *(s.dataset, s.protocol["name"], s.scores[0].name, each.first, each.second),
            *(*astuple(each.difference), each.p, each.corrected),
        )
        for s in sections
        for each in s.comparisons
    )
    return csv_table(_TESTS, rows)


def bibliography(summary: Mapping[str, Any]) -> str:
    """Return BibTeX for a study: the software with its records, its protocols, sets and models."""
    version = re.sub(r"[^\w.+-]", "", summary["versions"]["kornia-ditf"])
    software = (
        "@software{kornia_ditf,\n"
        "  title = {kornia\\_ditf},\n"
        f"  version = {{{version}}},\n"
        f"  note = {{records with the SHA-256 {summary['records']}}}\n}}"
    )
    texts = [str(each["protocol"]["source"]) for each in summary["experiments"]]
    names = {each["name"] for each in summary["study"]["datasets"]}
    for name in {each["name"] for each in summary["experiments"]}:
        if "/" in name:  # a folder or a repository on the hub, which nothing is asked for here
            continue
        with suppress(DiTFError):  # its plugin may not be installed here
            texts.append(find_matcher(name).source)
            if isinstance(find_descriptor(name), BackboneSpec):
                names.add("ditf")
    cited = {number for text in texts for number in _ARXIV.findall(text)}
    known = files("kornia_ditf.study.report").joinpath("references.bib").read_text("utf-8")
    entries = [software]
    for entry in known.strip().split("\n\n"):
        fields = dict(re.findall(r"(eprint|keywords) = \{([^}]*)\}", entry))
        if fields["eprint"] in cited or fields.get("keywords") in names:
            entries.append(entry)
            cited.discard(fields["eprint"])
    entries += [
        f"@misc{{arxiv{number},\n  eprint = {{{number}}}, archivePrefix = {{arXiv}}\n}}"
        for number in sorted(cited)
    ]
    return "\n\n".join(entries) + "\n"


def csv_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_safe(value) for value in row] for row in rows)
    return file.getvalue()


def _safe(value: Any) -> Any:
    text = one_line(value) if isinstance(value, str) else value
    # A spreadsheet takes such a text for a formula, and runs it.
    return f"'{text}" if isinstance(text, str) and text[:1] in tuple("=+-@") else text
