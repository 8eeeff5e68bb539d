"""Editing, annotation tools and autosave of the active label."""
