"""Damage to files: random where a disk is at fault, well-aimed where somebody wanted it.

Pure functions of a random generator: the same seed makes the same damage. They know JSON, TOML,
JSON lines and the header of safetensors, and not what the program makes of them.
"""

from __future__ import annotations

import json
import math
import random
from typing import Any

NUMBERS = (
    "NaN", "Infinity", "-Infinity", "-0", "0", "-1", "1", "1e308", "1e999", "-1e999", "1e-400",
    "0.5", "127", "2147483648", "4294967296", "9007199254740993", "9223372036854775807",
    "9223372036854775808", "18446744073709551616", "1" + "0" * 400, "-" + "9" * 400,
    "9" * 4299, "9" * 4301, "9" * 50_000, "1." + "0" * 9_000, "true", "false",
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "a\0b", "\ud800", "\x1b[2J", "\u202eabc", "../../etc/passwd", "/dev/zero", "..",
    "-rf", "%s%n", "\u0660\u0661", "None", "nan", "__class__", "F64", "a.b.c", "x" * 300,
    "\N{PILE OF POO}" * 50, "\n" * 40, "[", "cuda:99999999999", "1e999",
)  # fmt: skip
STRUCTURES = (
    "null", "[]", "{}", "[[]]", "[null]", '{"":null}', "[0,0]", '["a"]', '{"a":{"a":{"a":{}}}}',
    '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', "[" * 900 + "]" * 900,
)  # fmt: skip
RARE = (
    lambda: "[" * 100_000,
    lambda: '{"a":' * 100_000,
    lambda: "[" * 20_000 + "]" * 20_000,
    lambda: "9" * 1_000_000,
    lambda: '"' + "x" * 1_000_000 + '"',
    lambda: "[" + ",".join(["{}"] * 300_000) + "]",
    lambda: "[" + ",".join(["1e999"] * 200_000) + "]",
    lambda: "{" + ",".join(f'"{n}":[]' for n in range(100_000)) + "}",
)
"""Large ones cost a thousandfold: one mutation in RARITY takes one."""
RARITY = 400

_MARK = "\ue000"


def raw(rng: random.Random) -> str:
    """A JSON value as text, which Python's own writer would not always write."""
    if rng.randrange(RARITY) == 0:
        return rng.choice(RARE)()
    pick = rng.random()
    if pick < 0.45:
        return rng.choice(NUMBERS)
    if pick < 0.75:
        return json.dumps(rng.choice(TEXTS))
    return rng.choice(STRUCTURES)


def of_json(rng: random.Random, data: bytes) -> bytes:
    """One to three changes in the tree of a JSON text, or bytes overwritten in it."""
    if rng.random() < 0.25:
        return of_bytes(rng, data)
    holder = [json.loads(data)]
    planted: dict[str, str] = {}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change_node(rng, holder, planted)
    text = json.dumps(holder[0], ensure_ascii=rng.random() < 0.5)
    for mark, value in planted.items():
        text = text.replace(f'"{mark}"', value).replace(json.dumps(mark), value)
    if rng.random() < 0.03:
        text = rng.choice(("\ufeff", " ", "[", "//\n", "")) + text + rng.choice(("", "x", "}"))
    return text.encode("utf-8", "surrogatepass")


def _change_node(rng: random.Random, holder: list[Any], planted: dict[str, str]) -> None:
    parent, key = rng.choice(_nodes(holder))

    def plant(value: str) -> str:
        mark = f"{_MARK}{len(planted)}{_MARK}"
        planted[mark] = value
        return mark

    kind = rng.randrange(8)
    if kind < 5:
        parent[key] = plant(raw(rng))
    elif kind == 5:
        if isinstance(parent, dict):
            parent[rng.choice(TEXTS)] = parent.pop(key)
        else:
            parent.append(parent[key])
    elif kind == 6:
        if parent is not holder:
            del parent[key]
    elif isinstance(parent, dict):  # the same key twice, as only raw text can say it
        again = plant(f"{raw(rng)},{json.dumps(key)}:{raw(rng)}")
        parent[key] = again
    else:
        parent[key] = plant(f"{raw(rng)},{raw(rng)}")


def _nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree, as many places as it has; at most a few of a long list."""
    found = []
    waiting = [value]
    while waiting:
        parent = waiting.pop()
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        for key in keys[:6] + keys[-6:] if len(keys) > 40 else keys:
            found.append((parent, key))
            if isinstance(parent[key], dict | list):
                waiting.append(parent[key])
    return found


def of_lines(rng: random.Random, data: bytes) -> bytes:
    """JSON lines: some of them changed, swapped, doubled, torn, joined or replaced."""
    if rng.random() < 0.2:
        return of_bytes(rng, data)
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(8)
        if kind < 4 and lines[at].startswith(b"{"):
            lines[at] = of_json(rng, lines[at]) if _is_json(lines[at]) else b""
        elif kind == 4:
            lines[at] = raw(rng).encode("utf-8", "surrogatepass")
        elif kind == 5:
            lines.insert(rng.randrange(len(lines)), lines[at])
        elif kind == 6:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        else:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
    if rng.randrange(RARITY) == 0:
        lines.append(rng.choice((b"{}\n" * 300_000, b"x" * 9_000_000, b'{"step":1}\n' * 100_000)))
    return b"\n".join(lines)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


TOML_VALUES = (
    "nan", "inf", "-inf", "-1", "0", "1", "0x" + "f" * 5_000, "0b" + "1" * 9_000, "1e999", "1e-999",
    "9" * 400, "9" * 5_000, "9223372036854775808", "true", '""', '"\\u0000"', "'''x'''", "[]", "{}",
    "[[]]", "[1, 'a', {}]", "{a = {a = {a = 1}}}", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z",
    "9999-99-99", '"' + "x" * 2_000 + '"', "[" * 700 + "]" * 700, "[" * 3_000, "{a=" * 3_000,
    '"cuda:9"', "[nan, nan]", "[1]", "[1, 2, 3]", "'a'", "0.1", "1_0", '"[["', "\\", "",
    '"""' + "\n" * 300 + '"""',
)  # fmt: skip
TOML_LINES = (
    "[model]", "[[model]]", "[a.b.c]", "[" + "a." * 500 + "a]", "a.b.c = 1", "model = 1",
    "a." * 2_000 + "a = 1", "= 1", "title = 1", 'title = "\\u202e"', "[", "]", "\0", "\ufeff",
    "[train]", '"" = 1', "__class__ = 1", "# \x1b]0;x\x07", '"\\uD800" = 1', "[data.x]",
)  # fmt: skip


def of_toml(rng: random.Random, data: bytes) -> bytes:
    """Values, keys and whole lines of a TOML text replaced, or bytes overwritten in it."""
    if rng.random() < 0.2:
        return of_bytes(rng, data)
    lines = data.decode().split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        key, equals, _ = lines[at].partition("=")
        kind = rng.randrange(6)
        if kind < 3 and equals:
            lines[at] = f"{key}= {rng.choice(TOML_VALUES)}"
        elif kind == 3:
            lines.insert(at, rng.choice(TOML_LINES))
        elif kind == 4:
            lines.insert(at, rng.choice(lines))
        else:
            lines[at] = rng.choice((lines[at][: len(lines[at]) // 2], "", lines[at] * 2))
    if rng.randrange(RARITY) == 0:
        long = ("x." * 1_000_000 + "x=1", "a=[" + "[]," * 300_000, "y=1\n" * 9_000)
        lines.append(rng.choice(long))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def of_bytes(rng: random.Random, data: bytes) -> bytes:
    """As a broken disk or tool would: bits, holes, repeats, truncation, another encoding."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        size = len(damaged)
        # Mostly near the beginning, where headers are.
        at = rng.randrange(min(size, 400) if size and rng.random() < 0.6 else size + 1)
        kind = rng.randrange(8)
        if kind == 0 and size:
            damaged[at % size] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del damaged[at : at + rng.choice((1, 4, 100))]
        elif kind == 2:
            damaged[at:at] = rng.randbytes(rng.choice((1, 8, 200)))
        elif kind == 3:
            wrong = (b"\0" * 8, b"\xff" * 8, b"\xc3\x28", b"\xed\xa0\x80")
            damaged[at : at + 8] = rng.choice(wrong)
        elif kind == 4:
            damaged[at:at] = damaged[at : at + 60] * rng.choice((1, 30))
        elif kind == 5 and rng.random() < 0.3:
            del damaged[at:]
        elif kind == 6 and size:
            damaged[at % size] = rng.choice(b'0123456789{}[]",:.-eE\\\n =')
        elif kind == 7 and rng.random() < 0.05:
            return bytes(damaged).decode("latin-1").encode(rng.choice(("utf-16", "utf-32")))
    return bytes(damaged)


def of_tensors(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file whose header lies: in its length, its entries, or against its data."""
    if rng.random() < 0.15:
        return of_bytes(rng, data)
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length], data[8 + length :]
    change = rng.choice((of_json, of_json, _lying_entries, _lying_entries, _keep))
    header = change(rng, header)
    if rng.random() < 0.2:
        body = rng.choice((body[: len(body) // 2], body + b"\0" * 64, b"", body * 2))
    told = len(header)
    if rng.random() < 0.15:
        told = rng.choice((0, 1, told - 1, told + 1, 2**31, 2**63, 2**64 - 1, 16_000_001))
    return told.to_bytes(8, "little") + header + body


def _keep(rng: random.Random, header: bytes) -> bytes:
    return header


def _lying_entries(rng: random.Random, header: bytes) -> bytes:
    """Entries that are valid each and wrong together, or whose shape has the right size by luck."""
    entries: dict[str, Any] = json.loads(header)
    names = [name for name in entries if name != "__metadata__"]
    for _ in range(rng.choice((1, 1, 2))):
        entry = entries[rng.choice(names)]
        entry.update(rng.choice(_lies(rng, entry, entries[rng.choice(names)])))
    kind = rng.randrange(10)
    first, second = rng.choice(names), rng.choice(names)
    if kind < 3:
        entries[first], entries[second] = entries[second], entries[first]
    elif kind == 3:
        entries[rng.choice(TEXTS)] = dict(entries[first])
    return json.dumps(entries).encode()


def _lies(rng: random.Random, entry: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    """Fields for `entry` that are not its own."""
    begin, end = entry["data_offsets"]
    count = math.prod(entry["shape"])
    return [
        {"shape": [count]},
        {"shape": [1] * rng.choice((63, 64, 65)) + [count]},
        {"shape": entry["shape"][::-1]},
        {"shape": [0, 2**62, 2**62], "data_offsets": [begin, begin]},
        {"shape": [2**32, 2**32]},
        {"shape": [], "data_offsets": [begin, begin + 4]},
        {"dtype": rng.choice(("F64", "BF16", "BOOL", "C64", "F8_E4M3"))},
        {"dtype": rng.choice(("U16", "BF16", "F16")), "shape": [(end - begin) // 2]},
        {"dtype": rng.choice(("BOOL", "U8", "F8_E5M2")), "shape": [end - begin]},
        {"data_offsets": [end, begin]},
        {"data_offsets": [begin + 1, end + 1]},
        {"data_offsets": other["data_offsets"]},
    ]
