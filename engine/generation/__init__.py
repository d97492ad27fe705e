"""Text from weights: the sampling settings, the sampling functions, and the loop around them.

`params` and `default` are free of torch; `sampling`, `generate` and `load` need it.
"""
