"""Exports of a project: masks, datasets, reports and MONAI bundles."""
