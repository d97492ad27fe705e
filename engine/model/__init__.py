"""The networks. `GPT` is the classic one; its parts are one noun a file, meant to be read."""

from engine.model.gpt import GPT

__all__ = ["GPT"]
