"""Training and inference: losses, methods, the training loop and prediction; no Qt or napari."""
