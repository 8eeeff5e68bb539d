"""Losses: supervised cross-entropy and Dice, UnCL, FeCL and SECL."""

from napari_dycon.engine.losses.fecl import fecl
from napari_dycon.engine.losses.secl import secl
from napari_dycon.engine.losses.supervised import supervised_loss
from napari_dycon.engine.losses.uncl import uncl

__all__ = ["fecl", "secl", "supervised_loss", "uncl"]
