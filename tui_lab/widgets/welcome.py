"""What the Train screen says before anything has been trained."""

from __future__ import annotations

from textual.strip import Strip

from tui_lab.widgets.lines import LineView, Piece


class Welcome(LineView):
    """A title, a sentence, and the keys to begin with, in the middle of the screen."""

    DEFAULT_CSS = "Welcome { width: 1fr; height: 1fr; }"

    def __init__(self, unicode: bool = True) -> None:
        super().__init__(id="welcome")
        self.unicode = unicode

    def build(self, width: int, height: int) -> list[Strip]:
        key = "key"
        lines: list[tuple[Piece, ...]] = [
            (("tui-lab", "smooth"),),
            (("Train a GPT in front of you, steer it, look inside it, talk to it.", "text"),),
            (),
            ((f"{'enter':>8}   ", key), ("train now: preset micro on Python's own help", "text")),
            ((f"{'n':>8}   ", key), ("set up a run of your own", "text")),
            ((f"{'4':>8}   ", key), ("talk to the model that is here already", "text")),
            ((f"{'2':>8}   ", key), ("look at the runs of this lab", "text")),
            ((f"{'5':>8}   ", key), ("look at the texts to learn from", "text")),
            (),
            (
                (f"{'?':>8}   ", key),
                ("all keys", "muted"),
                ("      ctrl+p   ", key),
                ("any command", "muted"),
            ),
        ]
        top = max(0, (height - len(lines)) // 2 - 1)
        indent = " " * max(1, (width - 66) // 2)
        blank = [Strip([])] * top
        return [*blank, *(self.strip((indent, ""), *line) for line in lines)]
