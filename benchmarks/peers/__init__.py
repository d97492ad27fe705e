"""The sides of the contests: nanoGPT from a checkout, `transformers` from the registry, and ours.

Each module is one process that trains behind a `benchmarks.gate.Gate`.
"""
