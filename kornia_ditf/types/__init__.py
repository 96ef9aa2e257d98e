"""The values that pass between stages: small, frozen, their shapes stated.

Points are `(x, y)`, sizes `(height, width)`, and `(0, 0)` is the centre of the first pixel.
"""

from kornia_ditf.types.capture import Conditioning, Tap, TokenNorm
from kornia_ditf.types.descriptors import DescriptorMap, Discarded, unit_length
from kornia_ditf.types.frame import Frame
from kornia_ditf.types.matches import Matches

__all__ = [
    "Conditioning",
    "DescriptorMap",
    "Discarded",
    "Frame",
    "Matches",
    "Tap",
    "TokenNorm",
    "unit_length",
]
