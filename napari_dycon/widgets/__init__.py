"""Qt and napari: each widget takes the session."""
