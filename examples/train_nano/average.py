"""Write weights that lie between two others.

python examples/train_nano/average.py FIRST SECOND --share 0.5 --out FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

from network import Network, read, write


def between(first: Network, second: Network, share: float) -> Network:
    """Move the first network's weights the share of the way to the second's, in place."""
    other = second.state_dict()
    first.load_state_dict({k: v.lerp(other[k], share) for k, v in first.state_dict().items()})
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path, help="nano_weights")
    parser.add_argument("second", type=Path, help="nano_weights that were trained from the first")
    parser.add_argument("--share", type=float, default=0.5, help="0 is the first, 1 the second")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    write(between(read(options.first), read(options.second), options.share), options.out)


if __name__ == "__main__":
    main()
