"""Widgets that know nothing of the engine: they are told numbers and texts, and draw them."""
