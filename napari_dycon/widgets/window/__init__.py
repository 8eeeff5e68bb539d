"""What belongs to the whole window: shortcuts, closing, background tasks, errors, preferences."""
