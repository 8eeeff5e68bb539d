"""The folder of a training run: its files, its events and what is known about it."""
