from __future__ import annotations

import pytest
from toy_backbone import config

from kornia_ditf.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestep": 2600}, r"timestep must lie in \[0, 1000\]"),
        ({"timestep": -1}, r"timestep must lie in \[0, 1000\]"),
        ({"block": -1}, "block must be 0 or more"),
        ({"ensemble": 0}, "ensemble must be 1 or more"),
        ({"long_side": 0}, "long_side must be 1 or more"),
        ({"rows_per_forward": 0}, "rows_per_forward must be 1 or more"),
        ({"treatment": "adain"}, "treatment must be one of"),
        ({"massive_channels": (-3,)}, "massive_channels must be 0 or more"),
        (
            {"massive_channels": 5},
            "massive_channels must be a sequence of .*, got 5",
        ),
        ({"massive_channels": (1.5,)}, "massive_channels must be an integer, 0 or more, got 1.5"),
        ({"timestep": "abc"}, r"timestep must lie in .*, got 'abc'"),
        ({"timestep": None}, r"timestep must lie in .*, got None"),
        ({"timestep": True}, r"timestep must lie in .*, got True"),
        ({"timestep": float("nan")}, r"timestep must lie in .*, got nan"),
        ({"block": "3"}, "block must be an integer, 0 or more, got '3'"),
        ({"block": True}, "block must be an integer, 0 or more, got True"),
        ({"block": 1.5}, "block must be an integer, 0 or more, got 1.5"),
        ({"ensemble": "2"}, "ensemble must be an integer, 1 or more, got '2'"),
        ({"seed": 1.5}, "seed must be an integer"),
        ({"seed": 2**70}, "seed must lie in"),
        ({"prompt": 3}, "prompt must be a string, got 3"),
    ],
)
def test_a_wrong_configuration_speaks_where_it_is_made(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        config(**changes)
