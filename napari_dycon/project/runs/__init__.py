"""Folders of training runs: files, events and metadata."""
