"""`tui-lab generate --all`, several prompts, and beams: rows, files, broken and vanished ones."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from engine.checkpoints import list_checkpoints
from engine.errors import InputError
from engine.generation.across import PassedOver, Sampled, sample_across
from engine.generation.load import load_generator
from engine.generation.params import SamplingParams
from engine.lab import Lab
from tests.tiny_run import make_tiny_run
from tui_lab.cli import app

ARGUMENTS = ["--device", "cpu", "-n", "9"]
PARAMS = SamplingParams(max_tokens=9, seed=5)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Lab:
    return make_tiny_run(tmp_path_factory.mktemp("lab"))[0]


@pytest.fixture
def lab(trained: Lab, tmp_path: Path) -> Lab:
    """A copy to break."""
    shutil.copytree(trained.root, tmp_path / "lab")
    return Lab.find(tmp_path / "lab")


def run(lab: Lab, *arguments: str):
    """With seed 5, which a beam search has no use for."""
    seed = () if "--beams" in arguments else ("--seed", "5")
    command = ["--lab", str(lab.root), "generate", *ARGUMENTS, *seed, *arguments]
    result = CliRunner().invoke(app, command)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows(lab: Lab, *arguments: str) -> list[dict]:
    return [json.loads(line) for line in run(lab, *arguments, "--json").stdout.splitlines()]


def test_every_checkpoint_speaks_as_it_does_alone(trained: Lab) -> None:
    """Oldest first; each row is the sample that the checkpoint gives by itself with that seed, its
    mean log-probability that of its tokens."""
    found = rows(trained, "--run", "tiny", "--all", "-p", "the", "-p", "a cat")
    assert [(row["step"], row["prompt"]) for row in found] == [
        (step, prompt) for step in (10, 20, 30) for prompt in ("the", "a cat")
    ]
    for row in found:
        alone = load_generator(trained, f"tiny@{row['step']}", "cpu")
        seed = 5 + (row["prompt"] == "a cat")
        params = SamplingParams(max_tokens=9, seed=seed)
        tokens = list(alone.stream(row["prompt"], params))
        assert (row["text"], row["seed"]) == ("".join(token.text for token in tokens), seed)
        mean = sum(math.log(token.probability) for token in tokens) / len(tokens)
        assert row["mean_log_probability"] == pytest.approx(mean, rel=1e-3)
        assert row["tokens"] == len(tokens)
        assert row["val_loss"] == alone.info.val_loss


def test_a_broken_checkpoint_is_named_and_the_others_speak(lab: Lab) -> None:
    weights = lab.checkpoints / "tiny" / "step_000020" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    result = run(lab, "tiny", "--all", "-p", "the")
    header, *lines = result.stdout.splitlines()
    assert header.split("\t")[0] == "step"
    assert [line.split("\t")[0] for line in lines] == ["10", "30"]
    assert "skipped a broken checkpoint" in result.stderr
    assert "step_000020" in result.stderr
    assert result.exit_code == 1


def test_one_that_retention_removes_meanwhile_is_gone_and_no_failure(lab: Lab) -> None:
    """The run goes on training while its checkpoints are sampled."""
    listed = list_checkpoints(lab.checkpoints / "tiny")
    results = sample_across(listed, ["the"], PARAMS, device=CPU)
    assert isinstance(next(results), Sampled)
    shutil.rmtree(listed[1].path)
    second, third = results
    assert isinstance(second, PassedOver)
    assert second.gone
    assert isinstance(third, Sampled)


@pytest.mark.parametrize("suffix", [".md", ".csv", ".jsonl"])
def test_the_file_has_what_the_suffix_says_and_is_never_replaced_unasked(
    trained: Lab, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"samples{suffix}"
    texts = [row["text"] for row in rows(trained, "tiny", "--all", "-p", "the")]
    assert run(trained, "tiny", "--all", "-p", "the", "--output", str(out)).stdout == ""
    text = out.read_text()
    if suffix == ".csv":
        assert [row["text"] for row in csv.DictReader(text.splitlines(True))] == texts
    elif suffix == ".jsonl":
        assert [json.loads(line)["text"] for line in text.splitlines()] == texts
    else:
        assert [f"the{each}" in text for each in texts] == [True] * 3
        assert "| 10 |" in text
    with pytest.raises(InputError, match="already"):
        run(trained, "tiny", "--all", "-p", "a", "--output", str(out))
    assert out.read_text() == text
    run(trained, "tiny", "--all", "-p", "a", "--output", str(out), "--overwrite")
    assert out.read_text() != text


def test_ctrl_c_keeps_the_rows_that_are_done(trained: Lab, tmp_path: Path, monkeypatch) -> None:
    from engine.generation import across

    whole, seen = across.load_to_generate, []

    def interrupted(info, *arguments):
        seen.append(info.step)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return whole(info, *arguments)

    monkeypatch.setattr(across, "load_to_generate", interrupted)
    out = tmp_path / "samples.jsonl"
    result = run(trained, "tiny", "--all", "-p", "the", "--output", str(out))
    assert result.exit_code == 130
    assert "2 of 3 checkpoints are done" in result.stderr
    assert [json.loads(line)["step"] for line in out.read_text().splitlines()] == [10, 20]


def test_several_prompts_are_one_sample_each(trained: Lab, tmp_path: Path) -> None:
    """From options, lines or JSON lines alike, in their order, as each alone with seed + i."""
    plain, lines = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    plain.write_text("the\n\na cat\r\n")
    lines.write_text('"the"\n{"prompt": "a cat"}\n')
    found = rows(trained, "tiny", "-p", "the", "-p", "a cat")
    alone = rows(trained, "tiny", "-p", "a cat", "--seed", "6")
    assert found[1]["text"] == alone[0]["text"]
    for file in (plain, lines):
        again = rows(trained, "tiny", "--prompts-file", str(file))
        assert [(row["prompt"], row["text"]) for row in again] == [
            (row["prompt"], row["text"]) for row in found
        ]
    shown = run(trained, "tiny", "-p", "the", "-p", "a cat").stdout
    assert [text.strip("\n") for text in shown.split("---\n")] == [
        row["text"].strip("\n") for row in found
    ]


def test_beams_tell_their_scores_and_one_beam_is_greedy(trained: Lab) -> None:
    """`max_tokens` + prompt must fit learned positions: 9 and 3 of 16."""
    found = rows(trained, "tiny", "-p", "the", "--beams", "3")[0]
    scores = [beam["score"] for beam in found["beams"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert found["text"] == found["beams"][0]["text"]
    greedy = run(trained, "tiny", "-p", "the", "--temperature", "0").stdout
    assert run(trained, "tiny", "-p", "the", "--beams", "1").stdout == greedy


def test_alternatives_and_statistics_come_when_asked_for(trained: Lab) -> None:
    result = run(trained, "tiny", "-p", "the", "--json", "--alternatives", "2", "--stats")
    tokens = json.loads(result.stdout)["tokens"]
    assert {len(token["alternatives"]) for token in tokens} == {2}
    assert all(word in result.stderr for word in ("9 tokens", "tokens/s", "first after", "cache"))


def test_eight_bits_reach_one_checkpoint_and_all(trained: Lab) -> None:
    """The last row of --all is what the newest gives alone, and not what its floats give."""
    every = rows(trained, "tiny", "--all", "-p", "the", "--quantise", "int8")
    alone = rows(trained, "tiny", "-p", "the", "--quantise", "int8")[0]
    floats = rows(trained, "tiny", "-p", "the")[0]
    assert every[-1]["text"] == alone["text"]
    chances = [[token["probability"] for token in one["tokens"]] for one in (alone, floats)]
    assert chances[0] != chances[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tiny", "--run", "tiny", "-p", "a"], "both given"),
        (["tiny@10", "--all", "-p", "a"], "names one"),
        (["tiny", "--all", "-p", "a", "--beams", "2"], "--all and --beams"),
        (["tiny", "--all", "-p", "a", "--count", "2"], "--count 2"),
        (["tiny", "-p", "a", "--length-penalty", "0"], "--length-penalty does not go with samp"),
        (["tiny", "--all", "-p", "a", "--output", "x.txt"], "suffix"),
        (["tiny", "--prompts-file", "absent.txt"], "absent.txt"),
        (["tiny", "--beams", "999", "-p", "a"], "beams = 999"),
        (["tiny", "--all", "-p", "☃"], "☃"),
        (["tiny", "-p", "a", "--quantise", "int2"], "int2"),
        (["tiny", "--all", "-p", "a", "--quantise", "int2"], "int2"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(trained: Lab, arguments, words) -> None:
    with pytest.raises(InputError, match=words):
        run(trained, *arguments)


@pytest.mark.parametrize(
    "option",
    ["--temperature", "--top-k", "--top-p", "--min-p", "--repetition-penalty", "--seed", "--stop",
     "--alternatives"],
)  # fmt: skip
def test_a_search_takes_no_option_that_it_would_ignore(trained: Lab, option: str) -> None:
    """The default's own value counts as given: what is typed is meant."""
    value = {"--temperature": "0.8", "--top-p": "1"}.get(option, "1")
    with pytest.raises(InputError, match=f"{option} does not go with --beams"):
        run(trained, "tiny", "-p", "a", "--beams", "2", option, value)
