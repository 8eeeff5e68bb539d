"""Code that the configuration beside it names."""
