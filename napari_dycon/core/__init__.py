"""What every other package builds on; knows nothing of images or projects.

Atomic files and locks, safe reading of untrusted files, liveness of processes, crash reports,
escaping of text, colormaps.
"""
