"""Linked axial, coronal and sagittal views of the active case."""
