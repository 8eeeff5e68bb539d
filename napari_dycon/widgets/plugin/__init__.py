"""What napari calls by the manifest: readers, writers and commands."""
