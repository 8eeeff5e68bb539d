"""Training runs as a window sees them: control, status, history."""
