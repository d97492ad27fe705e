"""The networks. `GPT` is one family of them; its parts are one noun a file, meant to be read."""

from engine.model.cache import KVCache
from engine.model.experts import Routing
from engine.model.gpt import GPT

__all__ = ["GPT", "KVCache", "Routing"]
