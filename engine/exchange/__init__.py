"""Models in and out of the formats of other programs: Hugging Face folders, and GGUF.

`families` (which public class a network is) and the configurations need no torch; weights do.
"""
