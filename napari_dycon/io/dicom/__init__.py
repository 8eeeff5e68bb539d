"""DICOM: finding series in folders, reading them, writing segmentations and parametric maps."""
