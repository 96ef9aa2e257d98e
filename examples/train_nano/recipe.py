"""Train nano from the packages' photographs and measure it: every stage in order.

    python examples/train_nano/recipe.py --data DIR --out DIR

Run it again after a stop: a stage that ended is skipped, and one that was cut off goes on from its
last checkpoint.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
DENOISE = "--flow-images 3 --flow-weight 1 --correspondence-weight 0"
# Each stage begins with the weights of the one before.
STAGES = {
    "1-first": "--steps 1250 --rate 2e-3 --flow-images 3",
    "2-joint": "--steps 600 --rate 1e-3 --flow-images 3",
    "3-turns": "--steps 6000 --rate 1e-3",
    "4-denoise": f"--steps 450 --rate 1e-3 --keep-descriptor {DENOISE}",
}
CONTROL = f"--steps 2450 --rate 2e-3 {DENOISE}"


def run(script: str, *arguments: str | Path) -> None:
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the photographs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the stages")
    parser.add_argument("--threads", default="1")
    options = parser.parse_args()
    given = ("--data", options.data, "--threads", options.threads)
    start: tuple[str | Path, ...] = ()
    for name, settings in STAGES.items():
        run("train.py", *given, "--out", options.out / name, *start, *settings.split())
        start = ("--start", options.out / name / "nano_weights")
    run("train.py", *given, "--out", options.out / "control", *CONTROL.split())
    weights = ("--weights", start[1])
    run("calibrate.py", *given, *weights, "--control", options.out / "control" / "nano_weights")
    run("evaluate.py", *given, *weights, "--out", options.out)
    run("evidence.py", *given, *weights, "--out", options.out)


if __name__ == "__main__":
    main()
