"""The project folder: cases, labels, runs and predictions on disk; no torch or Qt."""
