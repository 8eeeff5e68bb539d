"""Background tasks of a window: threads, low-priority tasks, and progress in the activity dock."""
