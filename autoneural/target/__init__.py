"""How a chip computes, in numpy: no vendor package needed."""
