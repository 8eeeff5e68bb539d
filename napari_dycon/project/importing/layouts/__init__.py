"""Readers of the folder layouts of public benchmark datasets."""
