"""Learning: losses, methods, the training loop and prediction; no Qt, no napari."""
