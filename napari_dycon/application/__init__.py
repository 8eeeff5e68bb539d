"""What ``session.py`` is made of: the application without a window, no Qt."""
