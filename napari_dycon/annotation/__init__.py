"""What makes labeling fast: filling between slices, growing from strokes, tidying.

Arrays in, arrays out: canonical labels ``(D, H, W)`` of uint8 with 255 where nobody annotated. No
Qt, no torch; every function returns a new label, so that a caller can make one undo step of it.
"""
