"""The demo: synthetic scans with true labels, the loop on them, and its report."""
