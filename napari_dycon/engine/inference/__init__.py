"""Prediction: sliding windows, the ensemble of student and teacher, uncertainty, calibration and
embeddings of scans."""
