"""The losses: supervised cross-entropy and Dice, UnCL, FeCL and SECL, with their feature grids."""

from napari_dycon.engine.losses.contrastive import fecl, secl
from napari_dycon.engine.losses.segmentation import supervised_loss, uncl

__all__ = ["fecl", "secl", "supervised_loss", "uncl"]
