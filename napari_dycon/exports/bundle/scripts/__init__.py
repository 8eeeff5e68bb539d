"""Code used by the configuration of the bundle."""
