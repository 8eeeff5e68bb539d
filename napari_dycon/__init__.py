"""Annotate 3D scans in napari and train DyCON on them, semi-supervised.

Importing this package is cheap: torch, Qt and napari are loaded only by the parts that need them.
"""

from __future__ import annotations

__version__ = "0.1.0"
