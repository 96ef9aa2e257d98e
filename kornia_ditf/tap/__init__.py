"""Capture of a block's input, and of what its attention projects of it."""

from kornia_ditf.tap.capture import (
    block_list,
    capture_blocks,
    capture_gates,
    checking_every_capture,
    count_blocks,
    facet_width,
    find_module,
    modulation_error,
    read_norm,
)
from kornia_ditf.tap.declarations import (
    ADALN_SINGLE,
    ArgumentModulation,
    BlockCall,
    BlockStream,
    ChunkedModulation,
    Facet,
    LinearModulation,
    Modulation,
    NoModulation,
    TableModulation,
    first_tensor,
)

__all__ = [
    "ADALN_SINGLE",
    "ArgumentModulation",
    "BlockCall",
    "BlockStream",
    "ChunkedModulation",
    "Facet",
    "LinearModulation",
    "Modulation",
    "NoModulation",
    "TableModulation",
    "block_list",
    "capture_blocks",
    "capture_gates",
    "checking_every_capture",
    "count_blocks",
    "facet_width",
    "find_module",
    "first_tensor",
    "modulation_error",
    "read_norm",
]
