"""The named protocols, each with its source; docs/protocols.md tells them apart."""

from __future__ import annotations

from difflib import get_close_matches

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.protocols.protocol import Fit, Protocol

PROTOCOLS: tuple[Protocol, ...] = (
    Protocol(
        name="plain",
        source="kornia_ditf: each descriptor fits images as it does by itself",
        datasets=("folder", "synthetic"),
        base="image",
    ),
    Protocol(
        name="dift-spair",
        source="DIFT, arXiv 2306.03881, eval_spair.py",
        datasets=("spair-71k",),
        fit=Fit(kind="squash", side=768),
        hints={"timestep": 261, "up_block": 1, "ensemble": 8, "prompt": "a photo of a {label}"},
    ),
    Protocol(
        name="ditf-spair",
        source="DiTF, arXiv 2505.18584, eval_spair.py",
        datasets=("spair-71k",),
        fit=Fit(kind="long-side", side=640, multiple=16),
        hints={"timestep": 260, "block": 28, "ensemble": 8, "treatment": "adaln+discard"},
    ),
)


def list_protocols() -> dict[str, Protocol]:
    """List the named protocols.

    Example:
        >>> list_protocols()["dift-spair"].fit.side
        768
    """
    return {protocol.name: protocol for protocol in PROTOCOLS}


def find_protocol(name: str) -> Protocol:
    """Find a protocol by its name.

    Raises:
        InvalidArgumentError: no protocol has it.
    """
    known = list_protocols()
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1, cutoff=0.4)
    advice = f"did you mean {near[0]!r}? " if near else ""
    raise InvalidArgumentError(f"no protocol is named {name!r}; {advice}known: {', '.join(known)}")
