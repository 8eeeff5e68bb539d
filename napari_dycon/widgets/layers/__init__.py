"""The layers of the active case: images, labels, overlays, and painting in them."""
