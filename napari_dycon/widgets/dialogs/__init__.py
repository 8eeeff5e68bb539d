"""Dialogs: prompts, progress, new projects, series, channels and export."""
