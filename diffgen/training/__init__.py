"""Algorithm 1, and its launch on Ray Train or inline."""
