"""Changes to the cases and structures of a project that keep everything they take away."""
