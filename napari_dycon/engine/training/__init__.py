"""Training: loop, schedules, periodic tasks and control by other processes."""

from napari_dycon.engine.training.run import train

__all__ = ["train"]
