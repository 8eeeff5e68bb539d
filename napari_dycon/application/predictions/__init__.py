"""Predictions: their process, their status, and artifacts of their maps."""
