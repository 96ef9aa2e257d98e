"""The structure of JPEG files, which decoders do not check."""

from __future__ import annotations

import re

# Among coded pixels stand stuffed zeros and restart markers.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_START_OF_SCAN, _END_OF_IMAGE, _WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)


def count_scans(content: bytes) -> int:
    """Count the scans of a JPEG file up to the end of the image; 0 where that is missing.

    It walks through the segments, over previews in the header, to the end of the coded pixels.
    Stray bytes between segments are passed over, as Pillow and libjpeg do.
    """
    position, scans = 2, 0
    while found := _MARKER.search(content, position):
        position, marker = found.end(), found[1][0]
        if marker == _END_OF_IMAGE:
            return scans
        if marker in _WITHOUT_LENGTH:
            continue
        scans += marker == _START_OF_SCAN
        position += int.from_bytes(content[position : position + 2], "big")
    return 0
