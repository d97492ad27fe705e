"""A tokenizer that came in a Hugging Face folder, run by the `tokenizers` package.

Its `tokenizer.json` is kept as `hf_tokenizer.json` beside the project's own, which holds its
digest. What it says is read by `hf_document`; where such files lie is known to `engine.exchange`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from engine.errors import TokenizerError
from engine.tokenizers.base import Tokenizer, clean
from engine.tokenizers.hf_document import read_document
from engine.tokenizers.word import last_cut

if TYPE_CHECKING:
    import tokenizers

HF_FILE = "hf_tokenizer.json"
MAX_BYTES = 1 << 26  # gpt-oss has 28 MB, Gemma 3 has 33


class HfTokenizer(Tokenizer):
    """Ids as the file gives them; those of a larger model that no token has stand for nothing.

    Byte lengths are those of the text as the tokenizer reads it: normalised (Qwen: NFC), and with
    SentencePiece's space before its first word, which is one byte more for each document.
    """

    kind: ClassVar[str] = "hf"

    def __init__(
        self, data: bytes, eot: int | None, bos: int | None = None, vocab_size: int = 0
    ) -> None:
        """`data`: a tokenizer.json. `eot`, `bos`: the special tokens that end and begin a
        document. `vocab_size`: the ids at least, as the model's table of them has it.

        Raises TokenizerError naming the field.
        """
        self._data = data
        self.document = _parsed(data)
        self.reading = read_document(self.document, vocab_size)
        super().__init__(self.reading.table, self.reading.special)
        for name, token in (("eos", eot), ("bos", bos)):
            if token is not None and token not in self._special_names:
                raise TokenizerError(f"field '{name}' is {token}: not a special token's id")
        self._eot, self.bos_id = eot, bos

    @property
    def eot_id(self) -> int | None:
        return self._eot

    @cached_property
    def beginning(self) -> tuple[int, ...]:
        """What the file's own template puts before a text: Llama's `<s>`, for Qwen nothing."""
        bare, framed = (
            self._encoder.encode("a", add_special_tokens=added).ids for added in (False, True)
        )
        for start in range(len(framed) - len(bare) + 1):
            if framed[start : start + len(bare)] == bare:
                return tuple(framed[:start])
        return ()

    @cached_property
    def _encoder(self) -> tokenizers.Tokenizer:
        """Built at first use: browsing a vocabulary needs no encoder.

        Raises TokenizerError: the package is absent, or refuses the file.
        """
        try:
            from tokenizers import Tokenizer as Encoder
        except ImportError:
            raise TokenizerError(
                "the package 'tokenizers' is absent, which runs tokenizers of Hugging Face folders",
                "pip install 'tui-lab[hf]'",
            ) from None
        try:
            encoder = Encoder.from_str(self._data.decode())
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in Rust is no Exception
            raise TokenizerError(
                f"the package 'tokenizers' refuses it: {str(error)[:200]}"
            ) from None
        # A corpus that mentions a special token must not contain one.
        encoder.encode_special_tokens = True
        encoder.no_padding()
        encoder.no_truncation()
        return encoder

    def check(self) -> None:
        """Build the encoder now, and see that it has our ids. Raises TokenizerError."""
        for token, added in self._encoder.get_added_tokens_decoder().items():
            known = self.reading.special if added.special else self.reading.added
            if known.get(added.content) != token:
                raise TokenizerError(
                    f"field 'added_tokens': {added.content[:40]!r} is made token {token}, the file "
                    f"says {known.get(added.content)}"
                )

    def __getstate__(self) -> dict[str, Any]:
        """Without the encoder, which another process builds for itself."""
        built = ("_encoder", "beginning")
        return {name: value for name, value in vars(self).items() if name not in built}

    def encode_array(self, text: str) -> np.ndarray:
        try:
            ids = self._encoder.encode(clean(text), add_special_tokens=False).ids
        except TokenizerError:
            raise
        except Exception as error:  # the package raises nothing narrower
            raise TokenizerError(f"the text cannot be encoded: {str(error)[:200]}") from None
        return np.array(ids, dtype=self.dtype)

    def decode(self, ids: Sequence[int]) -> str:
        """As the protocol says; the space that SentencePiece puts before a text is taken off."""
        text = self.decode_continuation(ids)
        return text.removeprefix(" ") if self.reading.prefixed else text

    def safe_cut(self, text: str, position: int) -> int:
        if position >= len(text):
            return len(text)
        return last_cut(self.reading.safe, text, position) if self.reading.safe else 0

    def settings(self) -> dict[str, Any]:
        return {
            "hf_sha256": hashlib.sha256(self._data).hexdigest(),
            "eos": self._eot,
            "bos": self.bos_id,
        }

    def files_beside(self) -> dict[str, bytes]:
        return {HF_FILE: self._data}


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"not valid JSON: {str(error) or type(error).__name__}") from None
