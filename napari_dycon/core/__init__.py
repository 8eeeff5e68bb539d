"""Basic utilities of all other packages, independent of images and projects.

Atomic files and locks, reading of untrusted files, liveness of processes, crash reports, escaping
of text, colormaps.
"""
