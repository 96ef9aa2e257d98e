"""A run that is killed at any moment goes on where it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PRELUDE = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from kornia_ditf.study.run.runner import run_study
from kornia_ditf.study.define.parsing import read_study
study, out = read_study(sys.argv[1]), Path(sys.argv[2])
run_study(study, out / "warm")  # children inherit the libraries that are loaded by now
begin = time.process_time()
run_study(study, out / "undisturbed")
whole = time.process_time() - begin
"""

AT_RANDOM_MOMENTS = """
random.seed(0)
killed = 0
for _ in range(12):
    moment = random.random() * whole * 0.3
    child = os.fork()
    if not child:  # its own processor time, however busy the machine is; SIGPROF ends it at once
        signal.setitimer(signal.ITIMER_PROF, moment)
        run_study(study, out / "killed")
        os._exit(0)
    killed += os.waitpid(child, 0)[1] == signal.SIGPROF
run_study(study, out / "killed")
print(killed)
"""

# At each file in turn, before and after it is put in place. Where that leaves nothing to go on from
# (a checksum without its file), a later one is next.
AT_EVERY_FILE = """
replace, placed = Path.replace, out / "placed"
placed.touch()
def die(path, target):
    global files
    files -= 1
    if not files and early:
        os._exit(9)
    replace(path, target)
    with placed.open("a") as log:
        print(target, file=log)
    if not files:
        os._exit(9)
died, files, known = 0, 1, 0
while not (out / "killed/study.json").exists():
    for early in (True, False):
        child = os.fork()
        if not child:
            Path.replace = die
            run_study(study, out / "killed")
            os._exit(0)
        died += os.waitpid(child, 0)[1] != 0
    before, known = known, len(set(placed.read_text().splitlines()))
    files = files + 1 if known == before else 1
run_study(study, out / "killed")
print(died)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("moments", "pairs"), [(AT_RANDOM_MOMENTS, 12), (AT_EVERY_FILE, 2)])
def test_a_run_that_is_killed_again_and_again_gives_the_records_of_an_undisturbed_one(
    make_study: Any, tmp_path: Path, moments: str, pairs: int
) -> None:
    file = make_study(pairs=pairs)
    if moments == AT_EVERY_FILE:  # two configurations have every kind of file
        file.write_text(file.read_text().replace("  - 1\n", ""))
    arguments = [str(file), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + moments, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    # At random moments, some came through before they were killed.
    assert int(done.stdout) >= (3 if moments == AT_RANDOM_MOMENTS else 20)
    files = [tmp_path / name / "records.parquet" for name in ("undisturbed", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()
