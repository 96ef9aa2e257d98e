"""Selection of the pairs that a protocol scores."""

from __future__ import annotations

import numpy as np

from kornia_ditf.datasets.pairs import PairDataset
from kornia_ditf.protocols.protocol import Protocol

_SEED = 42


def select_pairs(pairs: PairDataset, protocol: Protocol) -> list[int]:
    """Choose the pairs that a protocol scores, category by category in alphabetical order.

    Where a protocol scores only some of each category, they are drawn as sd-dino does: with the
    same seed for each category and with replacement, so that a pair may come twice and count
    twice.

    Args:
        pairs: the data set.
        protocol: whose `per_category` is read.

    Returns:
        indices of pairs; all, in order, where the protocol scores all.

    Raises:
        DatasetError: a pair must be read for its category, and cannot be.
    """
    if not protocol.per_category:
        return list(range(len(pairs)))
    members: dict[str, list[int]] = {}
    for index in range(len(pairs)):
        members.setdefault(pairs.category(index), []).append(index)
    chosen = []
    for _, found in sorted(members.items()):
        draws = np.random.RandomState(_SEED).choice(len(found), protocol.per_category)
        chosen += [found[draw] for draw in draws]
    return chosen
