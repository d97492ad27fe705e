"""Everything that trains, stores, samples and measures.

The engine knows nothing of who listens: no Textual, no Rich, no Typer, no print.
It is imported without torch; the modules that need it say so in their docstring.
"""

__version__ = "0.1.0"
