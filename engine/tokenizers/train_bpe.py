"""Learning byte-pair merges: rustbpe where it can be imported, a readable trainer beside it.

Both follow one rule, so both give the same merges: again and again, the adjacent pair of tokens
that occurs most often becomes a new token; among equally frequent pairs the one with the smallest
ids (first left, then right) wins. Source: Sennrich et al. 2016, applied to bytes as in GPT-2.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

from engine.tokenizers.split import Split

Pair = tuple[int, int]

MAX_CHARACTERS = 1 << 30
"""Text beyond this is not read: it changes merges no more, and rustbpe counts in 32 bits."""

MAX_TOKEN_BYTES = 256
"""Longer tokens (of rules and runs of spaces, doubled merge by merge) are left out: every token
made of one is longer still, so what remains is whole."""


def train(texts: Iterable[str], n_merges: int, split: Split) -> list[bytes]:
    """The tokens that `n_merges` merges add to the 256 bytes, in the order they were learned.

    Fewer when every piece of the text has become one token. The text is streamed. All are
    distinct and none is longer than MAX_TOKEN_BYTES.
    """
    blocks = _blocks(texts, split)
    try:
        from rustbpe import Tokenizer as RustTrainer
    except ImportError:
        learned = spell_merges(train_merges(count_pieces(blocks, split), n_merges))
    else:
        trainer = RustTrainer()
        trainer.train_from_iterator(blocks, 256 + n_merges, buffer_size=64, pattern=split.pattern)
        ranks = sorted(trainer.get_mergeable_ranks(), key=lambda item: item[1])
        learned = [bytes(token) for token, _ in ranks[256:]]
    # Two merges can spell the same bytes, and tiktoken knows tokens by their bytes alone.
    return [token for token in dict.fromkeys(learned) if 1 < len(token) <= MAX_TOKEN_BYTES]


def _blocks(texts: Iterable[str], split: Split) -> Iterator[str]:
    """All of `texts` in parts small enough for one core's turn, up to MAX_CHARACTERS."""
    left = MAX_CHARACTERS
    for text in texts:
        for block in split.blocks(text):
            yield block
            left -= len(block)
            if left <= 0:
                return


def count_pieces(texts: Iterable[str], split: Split) -> Counter[bytes]:
    """How often each piece of `split` occurs in `texts`, as UTF-8."""
    import regex

    pattern = regex.compile(split.pattern)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(pattern.findall(text))
    return Counter({piece.encode(): count for piece, count in counts.items()})


def train_merges(pieces: Counter[bytes], n_merges: int) -> list[Pair]:
    """The merges learned from `pieces`, the i-th of which makes token 256 + i.

    Every piece that occurs is kept once, as its tokens; a pair's count is corrected where a merge
    touches it rather than counted anew. The heap may hold counts that have fallen since: such an
    entry is put back with its true count when it comes up, and is never too low, since a pair only
    grows in the merge that creates it.
    """
    words = [list(piece) for piece in pieces]
    weights = list(pieces.values())
    counts: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)  # words that a pair may occur in
    for index, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += weights[index]
            places[pair].add(index)

    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        negative, pair = heapq.heappop(heap)
        if counts[pair] != -negative:
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
            continue
        token = 256 + len(merges)
        merges.append(pair)
        created: set[Pair] = set()
        for index in places.pop(pair):
            word, weight = words[index], weights[index]
            for old in pairwise(word):
                counts[old] -= weight
            words[index] = word = merge(word, pair, token)
            for new in pairwise(word):
                counts[new] += weight
                if token in new:
                    places[new].add(index)
                    created.add(new)
        for new in created:
            heapq.heappush(heap, (-counts[new], new))
    return merges


def merge(word: list[int], pair: Pair, token: int) -> list[int]:
    """`word` with `pair` replaced by `token` wherever it occurs, from left to right."""
    out: list[int] = []
    index = 0
    while index < len(word):
        if index + 1 < len(word) and (word[index], word[index + 1]) == pair:
            out.append(token)
            index += 2
        else:
            out.append(word[index])
            index += 1
    return out


def spell_merges(merges: Iterable[Pair]) -> list[bytes]:
    """The bytes of the token that each merge makes."""
    table = [bytes([value]) for value in range(256)]
    for left, right in merges:
        table.append(table[left] + table[right])
    return table[256:]


def recover_merges(tokens: list[bytes]) -> list[Pair]:
    """The pair of ids that made each of `tokens`, given distinct ones in the order learned.

    Mostly only one cut leaves two known tokens. Where several do, the token's own bytes, merged by
    the earlier tokens alone, end as exactly the two that were joined last.
    """
    ids = {bytes([value]): value for value in range(256)}
    lengths = {1}
    merges: list[Pair] = []
    for token in tokens:
        cuts = [
            cut
            for cut in sorted(lengths)
            if len(token) - cut in lengths and token[:cut] in ids and token[cut:] in ids
        ]
        cut = cuts[0]
        if len(cuts) > 1 and (last := _last_cut(token, ids)) in cuts:
            cut = last
        merges.append((ids[token[:cut]], ids[token[cut:]]))
        ids[token] = 255 + len(merges)
        lengths.add(len(token))
    return merges


def _last_cut(token: bytes, ids: dict[bytes, int]) -> int:
    """Where the last two parts of `token` meet when it is merged by rank."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [left + right for left, right in pairwise(parts)]
        at = min(range(len(joined)), key=lambda i: ids.get(joined[i], len(ids)))
        parts[at : at + 2] = [joined[at]]
    return len(parts[0])
