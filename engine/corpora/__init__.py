"""Corpora: what text there is, where it comes from, and how it becomes token shards.

Knows nothing of models and imports no torch. `registry` says which corpora there are, `sources`
streams their documents, `fetch` and `add` bring new ones in, `prepare` turns one into shards,
`statistics` describes one.
"""

from engine.corpora.add import add, remove
from engine.corpora.fetch import fetch
from engine.corpora.inspect import CorpusStatistics, PreviewToken, preview, statistics
from engine.corpora.prepare import prepare
from engine.corpora.registry import CorpusEntry, find_corpus, list_corpora
from engine.corpora.shards import Prepared, open_prepared
from engine.corpora.sources import documents
from engine.corpora.vocabulary import get_tokenizer

__all__ = [
    "CorpusEntry",
    "CorpusStatistics",
    "Prepared",
    "PreviewToken",
    "add",
    "documents",
    "fetch",
    "find_corpus",
    "get_tokenizer",
    "list_corpora",
    "open_prepared",
    "prepare",
    "preview",
    "remove",
    "statistics",
]
