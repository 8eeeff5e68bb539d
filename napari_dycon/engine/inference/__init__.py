"""Prediction: sliding windows, ensemble, uncertainty, calibration and embeddings."""
