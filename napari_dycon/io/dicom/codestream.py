"""How large a packed image says it is, before a decoder takes memory for it.

JPEG, JPEG-LS and JPEG 2000 carry sizes of their own, which need not be those of the DICOM header.
"""

from __future__ import annotations

# Frame headers of JPEG (without DHT, JPG and DAC, which lie among them) and of JPEG-LS.
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


def size_of(data: bytes) -> tuple[int, int] | None:
    """Rows and columns of a packed image; ``None`` for what is none of these formats."""
    if data[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SIZ comes first
        right, bottom, left, top = (int.from_bytes(data[n : n + 4]) for n in (8, 12, 16, 20))
        return bottom - top, right - left
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:  # filling
            at += 1
        elif kind in _ALONE:
            at += 2
        elif kind in _FRAMES:
            return int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        else:
            at += 2 + max(int.from_bytes(data[at + 2 : at + 4]), 2)
    return None
