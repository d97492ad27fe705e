"""Corpora: what text there is, where it comes from, and how it becomes token shards.

    registry     which corpora there are    sources      their documents, streamed
    addition     files of one's own         download     the ones to fetch
    interpreter  text that Python carries   digest       what a corpus holds, as a hash
    preparation  text to shards             shards       the shards on disk
    store        the folders they are in    vocabulary   a corpus's tokenizer
    description  counts, and a look at the tokens

Knows nothing of models and imports no torch.
"""

from engine.corpora.addition import add, remove
from engine.corpora.description import CorpusStatistics, PreviewToken, preview, statistics
from engine.corpora.download import fetch
from engine.corpora.preparation import find_prepared, prepare
from engine.corpora.registry import CorpusEntry, find_corpus, list_corpora
from engine.corpora.shards import Prepared, open_prepared
from engine.corpora.sources import documents
from engine.corpora.vocabulary import find_tokenizer, get_tokenizer

__all__ = [
    "CorpusEntry",
    "CorpusStatistics",
    "Prepared",
    "PreviewToken",
    "add",
    "documents",
    "fetch",
    "find_corpus",
    "find_prepared",
    "find_tokenizer",
    "get_tokenizer",
    "list_corpora",
    "open_prepared",
    "prepare",
    "preview",
    "remove",
    "statistics",
]
