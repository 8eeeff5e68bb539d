"""Bringing scans into a project: finding files, recognizing benchmark layouts, assigning channels,
copying labels."""
