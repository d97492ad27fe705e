"""A checkpoint against a corpus: parts, refusals, and agreement with the training itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine import events
from engine.checkpoints import find_checkpoint
from engine.corpora import add
from engine.errors import CorpusError, InputError, TokenizerError
from engine.lab import Lab
from engine.measure import Measured, Request, measure
from tests.conftest import small_text
from tests.tiny_run import CONTEXT, make_tiny_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Lab, list]:
    lab, said = make_tiny_run(tmp_path_factory.mktemp("lab"))
    for name, text in {"other": small_text(seed=8), "short": "the cat", "snow": "☃" * 99}.items():
        source = lab.root / f"{name}.txt"
        source.write_text(text)
        add(lab, name, [source])
    return lab, said


def run(lab: Lab, reference: str = "tiny", **request) -> Measured:
    info = find_checkpoint(lab, reference)
    result = measure(lab, info, Request(**request), device=torch.device("cpu"))
    assert result is not None
    return result


@pytest.mark.parametrize("step", [10, 20, 30])
def test_it_agrees_with_the_trainings_own_evaluation(trained, step: int) -> None:
    """The same split, windows and weights: a reloaded checkpoint scores what training said."""
    lab, said = trained
    (told,) = [e for e in said if isinstance(e, events.EvalDone) and e.step == step]
    result = run(lab, f"tiny@{step}")
    assert result.loss == pytest.approx(told.val_loss, abs=1e-6)
    assert result.bits_per_byte == pytest.approx(told.bits_per_byte, abs=1e-6)
    assert result.tokens == told.tokens
    assert (result.split, result.corpus, result.same_text) == ("val", "small", True)
    assert (result.context, result.stride) == (CONTEXT, CONTEXT)


def test_the_parts_are_disjoint_and_make_up_the_whole(trained) -> None:
    lab, _ = trained
    parts = {split: run(lab, split=split, stride=1) for split in ("val", "train", "all")}
    # Each part loses its first token as a target, and the windows score all others.
    assert parts["val"].tokens + parts["train"].tokens == parts["all"].tokens - 1
    assert parts["val"].tokens < parts["train"].tokens / 5


def test_another_corpus_is_scored_whole_with_the_checkpoints_tokenizer(trained) -> None:
    lab, _ = trained
    result = run(lab, corpus="other")
    assert (result.corpus, result.split, result.same_text) == ("other", "all", False)
    text = small_text(seed=8)
    assert len(text) - CONTEXT <= result.tokens <= len(text)
    assert result.bits_per_byte == pytest.approx(result.loss / 0.6931471805599453, rel=1e-6)


def test_a_shorter_context_is_allowed_and_a_longer_one_refused(trained) -> None:
    lab, _ = trained
    assert run(lab, context=4).context == 4
    with pytest.raises(InputError, match=f"context = 17: the model's context_length is {CONTEXT}"):
        run(lab, context=17)


def test_refusals_name_what_would_do(trained) -> None:
    lab, _ = trained
    with pytest.raises(CorpusError) as caught:
        run(lab, corpus="short")
    assert "no window of context 16" in caught.value.title
    assert "--context 6" in caught.value.hint
    assert run(lab, corpus="short", context=6).tokens == 6
    with pytest.raises(TokenizerError, match="☃"):
        run(lab, corpus="snow")
    with pytest.raises(CorpusError, match="unknown corpus 'smal'"):
        run(lab, corpus="smal")
    with pytest.raises(InputError, match="split"):
        Request(split="test")
    with pytest.raises(InputError, match="stride"):
        Request(stride=-1)


def test_a_changed_corpus_is_noticed(trained, tmp_path: Path) -> None:
    """Its validation part may hold what training saw: the figure must not pass for held out."""
    lab, _ = make_tiny_run(tmp_path / "lab", train__max_steps=1)
    text = lab.root / "small.txt"
    text.write_text(text.read_text() + "the end.\n")
    assert not run(lab, split="val").same_text


def test_stopping_gives_no_result(trained) -> None:
    lab, _ = trained
    info = find_checkpoint(lab, "tiny")
    device = torch.device("cpu")
    assert measure(lab, info, Request(), device=device, should_stop=lambda: True) is None
