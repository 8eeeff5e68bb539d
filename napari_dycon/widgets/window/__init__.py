"""What belongs to the whole window: shortcuts, closing, messages, errors, preferences."""
