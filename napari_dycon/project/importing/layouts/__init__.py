"""Folder layouts in which public benchmark datasets are distributed, read as cases."""
