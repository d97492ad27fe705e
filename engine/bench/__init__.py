"""What a device does at best, and what training and generating get out of it: rates, no claims.

`limits` times matrix products and memory, `training` and `generation` time the engine itself on
the shapes of `shapes`. Nobody else is measured here; peers are the benchmarks' to know.
"""
