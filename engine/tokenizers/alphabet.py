"""GPT-2's byte alphabet: any bytes as printable text, one character a byte, and back.

Files of byte-level BPE (`vocab.bpe`, `tokenizer.json`, GGUF) spell their tokens so. Bytes that
print as Latin-1 are themselves, the others were given the code points from 256 on, in order: a
space is `Ġ`, a newline `Ċ`. Source: `bytes_to_unicode` in openai/gpt-2. Knows no vocabulary.
"""

from __future__ import annotations

PRINTABLE = tuple(byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " ")
OTHERS = tuple(byte for byte in range(256) if byte not in PRINTABLE)

CHARACTER_OF = {byte: chr(byte) for byte in PRINTABLE} | {
    byte: chr(256 + index) for index, byte in enumerate(OTHERS)
}
BYTE_OF = {character: byte for byte, character in CHARACTER_OF.items()}

_TABLE = [CHARACTER_OF[byte] for byte in range(256)]


def spell(data: bytes) -> str:
    """`data` in the alphabet, a character a byte."""
    return "".join([_TABLE[byte] for byte in data])


def unspell(text: str) -> bytes:
    """The bytes that `text` spells. Raises KeyError for a character outside the alphabet."""
    return bytes([BYTE_OF[character] for character in text])
