"""Annotation algorithms: slice interpolation, random walker, morphology.

Functions take and return canonical labels: uint8 ``(D, H, W)``, 255 in unannotated voxels. Each
returns a new label, so that each call can be one undo step. The package uses neither Qt nor torch.
"""
