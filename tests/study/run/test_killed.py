"""A run that is killed at any moment goes on where it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Twelve pairs are killed at random moments; two pairs at each file in turn, before and after it is
# put in place. Where that leaves nothing to go on from (a checksum without its file), a later one
# is next.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from kornia_ditf.study.run.runner import run_study
from kornia_ditf.study.define.parsing import read_study
twelve, two, out = read_study(sys.argv[1]), read_study(sys.argv[2]), Path(sys.argv[3])
run_study(two, out / "warm")  # children inherit the libraries that are loaded by now
run_study(two, out / "two")
begin = time.process_time()
run_study(twelve, out / "twelve")
whole = time.process_time() - begin

random.seed(0)
killed = 0
for _ in range(12):
    moment = random.random() * whole * 0.3
    child = os.fork()
    if not child:  # its own processor time, however busy the machine is; SIGPROF ends it at once
        signal.setitimer(signal.ITIMER_PROF, moment)
        run_study(twelve, out / "twelve-killed")
        os._exit(0)
    killed += os.waitpid(child, 0)[1] == signal.SIGPROF
run_study(twelve, out / "twelve-killed")

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
while not (out / "two-killed/study.json").exists():
    for early in (True, False):
        child = os.fork()
        if not child:
            Path.replace = die
            run_study(two, out / "two-killed")
            os._exit(0)
        died += os.waitpid(child, 0)[1] != 0
    before, known = known, len(set(placed.read_text().splitlines()))
    files = files + 1 if known == before else 1
run_study(two, out / "two-killed")
print(killed, died)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_gives_the_records_of_an_undisturbed_one(
    make_study: Any, tmp_path: Path
) -> None:
    twelve, two = make_study(pairs=12, name="twelve.yaml"), make_study(pairs=2)
    two.write_text(two.read_text().replace("  - 1\n", ""))  # two settings have every kind of file
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(twelve), str(two), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    at_random, at_files = map(int, done.stdout.split())
    assert at_random >= 3 and at_files >= 20  # some came through before their moment
    for name in ("twelve", "two"):
        undisturbed, killed = (tmp_path / name, tmp_path / f"{name}-killed")
        read = [(folder / "records.parquet").read_bytes() for folder in (undisturbed, killed)]
        assert read[0] == read[1], name
