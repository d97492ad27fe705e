"""What every tokenizer is: a table of byte strings, an encoder into it, and how both are saved.

Knows nothing of any kind in particular, and nothing of where a tokenizer's folder lies.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from engine.atomic import write_bytes, write_text
from engine.errors import TokenizerError

END_OF_TEXT = "<|endoftext|>"
FORMAT = 1
FILE_NAME = "tokenizer.json"


class Tokenizer(ABC):
    """Ids 0 … `vocab_size` - 1; each stands for some bytes, or is special and stands for none.

    Instances never change, can be pickled, and may encode from several threads at once.
    """

    kind: ClassVar[str]

    def __init__(self, table: Sequence[bytes], special_tokens: dict[str, int]) -> None:
        """`table[id]` is the token's bytes, b"" for those that `special_tokens` names."""
        self._table = tuple(table)
        self.special_tokens = special_tokens
        self._special_names = {token: name for name, token in special_tokens.items()}

    @property
    def vocab_size(self) -> int:
        """The number of ids, special tokens included."""
        return len(self._table)

    @property
    def eot_id(self) -> int | None:
        """The end-of-text token that separates documents; None for characters."""
        return self.special_tokens.get(END_OF_TEXT)

    @property
    def beginning(self) -> tuple[int, ...]:
        """Special tokens that the model was trained to see before a prompt; ours has none."""
        return ()

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """What `encode_array` and prepared shards hold: uint16 where it suffices."""
        return np.uint16 if self.vocab_size <= 1 << 16 else np.uint32

    @abstractmethod
    def encode_array(self, text: str) -> np.ndarray:
        """The ids of `text`, shape (tokens,), of `dtype`.

        Text that spells a special token's name is text like any other.
        """

    def encode(self, text: str) -> list[int]:
        """The ids of `text` as a list."""
        return self.encode_array(text).tolist()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`. Invalid UTF-8 becomes U+FFFD; the end-of-text token becomes "".

        Raises TokenizerError for an id outside the vocabulary.
        """
        return self.decode_continuation(ids)

    def decode_continuation(self, ids: Sequence[int]) -> str:
        """What `ids` add to a text that has begun. `decode` differs where a tokenizer reads a text
        as if a space stood before it: it takes that space off. Raises as `decode`."""
        return b"".join([self.shown_bytes(token) for token in ids]).decode("utf-8", "replace")

    def shown_bytes(self, token: int) -> bytes:
        """What `token` adds to decoded text: its bytes, unless the kind shows a special token."""
        return self.token_bytes(token)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of the text that `token` stands for; b"" for special tokens."""
        if 0 <= token < len(self._table):
            return self._table[token]
        raise TokenizerError(
            f"token {token} is not in the vocabulary of this {self.kind} tokenizer",
            f"its ids run from 0 to {self.vocab_size - 1}",
        )

    def token_text(self, token: int) -> str:
        """One token for people: a special token's name; bytes that are no whole UTF-8 as \\xNN."""
        if token in self._special_names:
            return self._special_names[token]
        return self.token_bytes(token).decode("utf-8", "backslashreplace")

    def byte_lengths(self) -> np.ndarray:
        """Bytes of text behind each id, int32 of shape (vocab_size,); 0 for special tokens."""
        return np.fromiter(map(len, self._table), dtype=np.int32, count=self.vocab_size)

    def safe_cut(self, text: str, position: int) -> int:
        """The largest index `cut` <= `position` that is known to be safe to cut `text` at.

        Safe: `encode(text[:cut]) + encode(text[cut:]) == encode(text)`. 0 when none is known, which
        splits nothing. By default every place is safe, as each character is encoded by itself.
        """
        return max(0, min(position, len(text)))

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What decides the tokenizer's behaviour, ready for JSON: the file's own fields."""

    @property
    def digest(self) -> str:
        """SHA-256 in hex of the kind and the settings: equal digests, equal tokens."""
        return digest_of(self.kind, self.settings())

    def save(self, directory: Path) -> None:
        """Write `directory/tokenizer.json`, whole or not at all. Raises TokenizerError."""
        content = {"format": FORMAT, "kind": self.kind, "vocab_size": self.vocab_size}
        content |= {"digest": self.digest, **self.settings()}
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, data in self.files_beside().items():
                write_bytes(directory / name, data)
            # One field a line: indentation would give each merge four lines.
            lines = [f"  {json.dumps(name)}: {json.dumps(content[name])}" for name in content]
            write_text(directory / FILE_NAME, "{\n" + ",\n".join(lines) + "\n}\n")
        except OSError as error:
            raise TokenizerError(
                f"cannot write the tokenizer to '{directory}': {error.strerror}",
                "choose a folder that can be written to",
            ) from error

    def files_beside(self) -> dict[str, bytes]:
        """Files that a kind keeps beside `tokenizer.json`, by name."""
        return {}

    def __repr__(self) -> str:
        return f"<{self.kind} tokenizer, {self.vocab_size} tokens>"


def digest_of(kind: str, settings: dict[str, Any]) -> str:
    """The digest of a tokenizer of `kind` with these settings."""
    canonical = json.dumps([kind, settings], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def clean(text: str) -> str:
    """`text` as UTF-8 can hold it: surrogate pairs joined, lone surrogates as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
