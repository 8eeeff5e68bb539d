"""Image sizes in JPEG, JPEG-LS and JPEG 2000 headers.

They may differ from the DICOM header and are checked before a decoder allocates memory.
"""

from __future__ import annotations

# Frame headers of JPEG (without DHT, JPG and DAC, whose markers are in between) and JPEG-LS.
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_STANDALONE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # markers without a length


def jpeg_dimensions(data: bytes) -> tuple[int, int] | None:
    """Read rows and columns of a compressed image; ``None`` for other formats."""
    if data[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SIZ comes first
        right, bottom, left, top = (int.from_bytes(data[n : n + 4]) for n in (8, 12, 16, 20))
        return bottom - top, right - left
    if data[:2] != b"\xff\xd8":
        return None
    offset = 2
    while offset + 9 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # padding
            offset += 1
        elif marker in _STANDALONE_MARKERS:
            offset += 2
        elif marker in _FRAME_MARKERS:
            return int.from_bytes(data[offset + 5 : offset + 7]), int.from_bytes(
                data[offset + 7 : offset + 9]
            )
        else:
            offset += 2 + max(int.from_bytes(data[offset + 2 : offset + 4]), 2)
    return None
