"""Reports of the benchmark: tables, a JSON file and a chart."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kornia_ditf.bench.cases import Case
from kornia_ditf.bench.timing import Timing
from kornia_ditf.utils import provenance
from kornia_ditf.utils.files import atomic_write

START, END = "<!-- results: written by python -m kornia_ditf.bench -->", "<!-- end of results -->"


def circumstances(device: torch.device, threads: int) -> dict[str, Any]:
    """Return what the figures belong to: command, commit, date, hardware, versions."""
    gpu = device.type != "cpu"
    return {
        "command": "python -m kornia_ditf.bench " + " ".join(sys.argv[1:]),
        "commit": provenance.commit() or "not in a repository",
        "date": provenance.now(),
        "hardware": torch.cuda.get_device_name(device) if gpu else provenance.processor(),
        "threads": threads,
        **provenance.versions(["torch"]),
    }


def read_case(
    case: Case, timings: Mapping[str, Timing], results: Mapping[str, object]
) -> dict[str, Any]:
    """Convert the figures of a case to JSON values."""
    own = next(iter(timings))
    ours = timings[own]
    exactness = {
        name: case.compare(results[own], result)
        for name, result in results.items()
        if name != own and result is not None
    }
    rows = {
        name: {
            "seconds": list(timing.seconds),
            "times_ours": dict(zip(("min", "median", "max"), timing.ratios(ours), strict=True)),
            "times_reference": timing.ratios(timings[case.reference])[1]
            if case.reference
            else None,
            "gflops": case.flops / timing.median / 1e9 if case.flops else None,
            "peak_mb": timing.peak_mb,
            "exactness": exactness.get(name),
        }
        for name, timing in timings.items()
    }
    return {
        "group": case.group,
        "name": case.name,
        "reference": case.reference or None,
        "contestants": rows,
        "missing": list(case.missing),
    }


def as_markdown(report: Mapping[str, Any]) -> str:
    """Write the report as tables, one for each group of cases."""
    about = report["about"]
    lines = [
        f"`{about['command']}`, {about['date']}, commit {about['commit']}, {about['hardware']}, "
        f"{about['threads']} thread(s), torch {about['torch']}. {about['note']}".strip(),
    ]
    for group in dict.fromkeys(case["group"] for case in report["cases"]):
        cases = [case for case in report["cases"] if case["group"] == group]
        lines += ["", f"### {group}", "", *table(cases)]
    return "\n".join(lines) + "\n"


def table(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write cases as the lines of a table."""
    lines = [
        "| case | who | ms | times ours (min, median, max) | of torch.mm | MB | result |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        lines += [_row(case["name"], name, row) for name, row in case["contestants"].items()]
        lines += [f"| {case['name']} | {who} | not installed | | | | |" for who in case["missing"]]
    return lines


def _row(case: str, name: str, row: Mapping[str, Any]) -> str:
    ratio = row["times_ours"]
    times = f"{ratio['median']:.2f}"
    if len(row["seconds"]) > 1:
        times = f"{ratio['min']:.2f}, {ratio['median']:.2f}, {ratio['max']:.2f}"
    milliseconds = 1000 * sorted(row["seconds"])[len(row["seconds"]) // 2]
    product = "" if row["times_reference"] is None else f"{row['times_reference']:.2f}"
    memory = "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
    return (
        f"| {case} | {name} | {milliseconds:.4g} | {times} | {product} | {memory} "
        f"| {row['exactness'] or ''} |"
    )


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_page(path: Path, report: Mapping[str, Any]) -> None:
    """Write the tables between the two markers of a page."""
    before, rest = path.read_text("utf-8").split(START)
    after = rest.split(END)[1]
    write_text(path, f"{before}{START}\n\n{as_markdown(report)}\n{END}{after}")


def write_picture(path: Path, cases: Sequence[Mapping[str, Any]]) -> None:
    """Draw how many times as long as ours each took, on a logarithmic axis."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    bars = [
        (f"{case['name']}: {name}", row["times_ours"]["median"])
        for case in cases
        for index, (name, row) in enumerate(case["contestants"].items())
        if index
    ]
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(9, 1 + 0.2 * len(bars)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh([name for name, _ in bars], [ratio for _, ratio in bars], color="#4477aa")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set(xscale="log", xlabel="processor time, as a multiple of kornia_ditf's")
        axes.invert_yaxis()
        with atomic_write(path) as partial:
            figure.savefig(partial, format="png", dpi=120)
