"""What each chip accepts and how it computes: shipped data and numpy, no vendor package needed."""
