"""Models of others: their configurations and weights in our words."""
