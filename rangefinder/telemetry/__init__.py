"""What a process tells of itself: log lines, metrics, its own memory and age."""
