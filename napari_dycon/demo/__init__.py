"""The demo: a synthetic dataset, the complete workflow on it, and a report."""
