"""Graph rewrites, one per file; the module docstring is the mathematics of the change."""
