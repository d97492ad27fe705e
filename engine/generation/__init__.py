"""Text from weights: the sampling settings, the sampling functions, and the loop around them.

`params` is free of torch; `sampling` and `generate` need it.
"""
