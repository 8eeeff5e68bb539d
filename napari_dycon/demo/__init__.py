"""The demo: made-up scans with true labels, the loop on them without a window, its report."""
