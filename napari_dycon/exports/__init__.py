"""A project's work for other tools: files, folders, reports, bundles."""
