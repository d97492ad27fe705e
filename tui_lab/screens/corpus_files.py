"""What the Corpus screen reads of a lab: the corpora, what was prepared, pages of tokens.

Called in threads and by dialogs; no widgets.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engine.errors import CorpusError, EngineError
from engine.lab import Lab
from tui_lab.screens.corpus_rows import PreparedFacts
from tui_lab.widgets.token_map import TokenPiece

if TYPE_CHECKING:
    from engine.corpora import CorpusEntry, Prepared
    from engine.tokenizers import Tokenizer

PAGE = 1200
"""Tokens on one page of the preview."""


class Text(NamedTuple):
    """A corpus cut by one tokenizer, ready to be paged through."""

    tokenizer: Tokenizer
    prepared: Prepared

    def page(self, number: int) -> list[TokenPiece]:
        tokens = self.prepared.peek().slice(number * PAGE, (number + 1) * PAGE).tolist()
        return [self._piece(token) for token in tokens]

    def _piece(self, token: int) -> TokenPiece:
        data = self.tokenizer.token_bytes(token)
        return TokenPiece(token, data, "" if data else self.tokenizer.token_text(token))

    @property
    def pages(self) -> int:
        return max(1, -(-self.prepared.n_tokens // PAGE))


def survey(lab: Lab) -> tuple[list[CorpusEntry], dict[str, list[PreparedFacts]]]:
    """In a thread: the corpora, and what was prepared of each in this lab."""
    from engine.corpora import list_corpora, open_prepared

    prepared: dict[str, list[PreparedFacts]] = {}
    folder = lab.corpus / "prepared"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            found = open_prepared(path)
        except EngineError:
            continue  # the tokenizers' folder, one in the making, or a damaged one
        facts = PreparedFacts(found.tokenizer, found.n_tokens, found.size)
        prepared.setdefault(found.corpus, []).append(facts)
    return list_corpora(lab), prepared


def existing_path(text: str) -> Path:
    """What was typed as a path that is there. Raises CorpusError."""
    path = Path(text.strip()).expanduser()
    if not text.strip() or not path.exists():
        raise CorpusError(f"'{text.strip()}' is not there", "give the path of a file or a folder")
    return path.absolute()


def given_name(text: str) -> str:
    """What was typed as a name. Raises CorpusError when it is empty."""
    if not text.strip():
        raise CorpusError("a corpus needs a name")
    return text.strip()
