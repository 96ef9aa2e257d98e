"""Run the benchmark: python -m kornia_ditf.bench [--device cuda] [--quick]."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch

from kornia_ditf.bench import cases, models, peers, report
from kornia_ditf.bench.timing import time_in_turns
from kornia_ditf.utils.checks import read_device


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases, print the ratios, and write the requested files."""
    parser = argparse.ArgumentParser(prog="python -m kornia_ditf.bench", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="of every library")
    parser.add_argument("--rounds", type=int, default=3, help="turns each contestant gets")
    parser.add_argument("--only", default="", help="cases whose group or size holds this text")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see whether it runs")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--picture", type=Path, help="draw the ratios to this PNG file")
    parser.add_argument("--page", type=Path, help="put the tables into this page, at its marks")
    parser.add_argument("--note", default="", help="what else a reader of the figures should know")
    options = parser.parse_args(arguments)
    device = read_device(options.device)
    peers.limit_threads(options.threads)
    # The product that all is compared with must be one of float32.
    torch.set_float32_matmul_precision("highest")
    about = {**report.circumstances(device, options.threads), "note": options.note}
    done = []
    of_models = models.model_cases(device, quick=options.quick)
    for make in chain(cases.all_cases(device, quick=options.quick), of_models):
        case = make()
        if options.only.lower() not in f"{case.group}: {case.name}".lower():
            continue
        timings, results = time_in_turns(
            case.contestants,
            rounds=options.rounds,
            device=device,
            slow=case.slow,
            wall=case.wall,
        )
        done.append(report.read_case(case, timings, results))
        sys.stdout.write("\n".join([f"\n{case.group}", *report.table(done[-1:]), ""]))
        sys.stdout.flush()
    whole = {"about": about, "cases": done}
    if options.json:
        report.write_text(options.json, json.dumps(whole, indent=1) + "\n")
    if options.picture:
        report.write_picture(options.picture, done)
    if options.page:
        report.write_page(options.page, whole)


if __name__ == "__main__":
    main()
