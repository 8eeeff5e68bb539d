"""Training: the loop, its schedules, its periodic tasks and its control from outside."""

from napari_dycon.engine.training.run import train

__all__ = ["train"]
