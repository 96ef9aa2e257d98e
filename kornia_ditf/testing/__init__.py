"""Conformance suites: every rule that a backbone or descriptor breaks is named in one error.

Plugins run this in their own tests, on tiny random models from `kornia_ditf.testing.tiny`. pytest
is not needed.
"""

from __future__ import annotations

from kornia_ditf.errors import ConformanceError
from kornia_ditf.testing.backbones import BACKBONE_RULES, check_backbone
from kornia_ditf.testing.descriptors import DESCRIPTOR_RULES, check_descriptor

__all__ = [
    "BACKBONE_RULES",
    "DESCRIPTOR_RULES",
    "ConformanceError",
    "check_backbone",
    "check_descriptor",
]
