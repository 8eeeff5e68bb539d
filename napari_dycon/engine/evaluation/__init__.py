"""Evaluation: overlap, distances, quality of uncertainty, and folders of predictions."""
