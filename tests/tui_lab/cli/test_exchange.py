"""`tui-lab checkpoints export` and `import`: what they say, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from engine.errors import CheckpointError, CorpusError, InputError
from engine.generation.load import load_generator
from engine.lab import Lab
from tests.engine.exchange.making import run_with
from tests.engine.exchange.pairs import network
from tests.tui_lab.cli.processes import tui_lab
from tui_lab.cli import app


@pytest.fixture
def run(lab: Lab) -> str:
    torch.set_num_threads(1)
    run_with(lab, "first", network("llama", 7, 257))
    return "first"


def call(lab: Lab, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(
        app, ["--lab", str(lab.root), "checkpoints", *arguments], catch_exceptions=False
    )
    assert result.exit_code == code, result.output
    return result


def test_out_and_in_again_is_the_same_network(run: str, lab: Lab, tmp_path: Path) -> None:
    """And both say what became of it, and what to do with it next."""
    out = tmp_path / "out"
    said = call(lab, "export", "first@1", str(out))
    assert said.stdout.split("\t") == [str(out), said.stdout.split("\t")[1]]
    assert "LlamaForCausalLM, float32" in said.stdout
    assert "AutoModelForCausalLM" in said.stderr
    said = call(lab, "import", str(out), "--name", "back", "--corpus", "tiny")
    assert said.stdout.startswith("back\tLlamaForCausalLM, ")
    for verb in ("generate back", "evaluate back", "train --resume back --corpus CORPUS"):
        assert f"tui-lab {verb}" in said.stderr
    ours, back = (load_generator(lab, name, "cpu") for name in ("first", "back"))
    assert back.config.data.corpus == "tiny"
    tokens = torch.arange(6)[None]
    assert torch.equal(ours.model(tokens), back.model(tokens))
    listed = call(lab, "list", "back", "--json").stdout
    assert json.loads(listed)["kind"] == "imported"
    assert "sound\tback/step_000000" in call(lab, "verify", "back").stdout


def test_json(run: str, lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = json.loads(
        call(lab, "export", "first", str(out), "--dtype", "bfloat16", "--json").stdout
    )
    assert said["class"] == "LlamaForCausalLM"
    assert (said["format"], said["dtype"], said["path"]) == ("hf", "bfloat16", str(out))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(said["files"])
    said = json.loads(call(lab, "import", str(out), "--json").stdout)
    assert said["run"] == "out"
    assert Path(said["checkpoint"]).is_dir()
    assert said["parameters"] == sum(p.numel() for p in network("llama", 7, 257).parameters())


def test_a_file_for_llama_cpp(run: str, lab: Lab, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    target = tmp_path / "model.gguf"
    run_with(lab, "classic", network("gpt2", 7, 257))
    said = call(lab, "export", "classic", str(target), "--format", "gguf")
    assert "gpt2, float16" in said.stdout
    assert target.read_bytes().startswith(b"GGUF")
    with pytest.raises(InputError, match="is there already"):
        call(lab, "export", "classic", str(target), "--format", "gguf")
    said = call(
        lab, "export", "classic", str(target), "--format", "gguf", "--overwrite", "--dtype",
        "float32", "--json",
    )  # fmt: skip
    assert json.loads(said.stdout)["dtype"] == "float32"


def test_refusals(run: str, lab: Lab, tmp_path: Path) -> None:
    """Each before anything is written, by an error that is an exit code of 2 at the shell."""
    out = tmp_path / "out"
    with pytest.raises(InputError, match="--format onnx"):
        call(lab, "export", "first", str(out), "--format", "onnx")
    with pytest.raises(InputError, match="--dtype int8"):
        call(lab, "export", "first", str(out), "--dtype", "int8")
    with pytest.raises(CheckpointError, match="unknown run 'frist'"):
        call(lab, "export", "frist", str(out))
    assert not out.exists()
    with pytest.raises(InputError, match="is not there"):
        call(lab, "import", str(tmp_path / "nowhere"))
    with pytest.raises(CorpusError):
        call(lab, "import", str(tmp_path), "--corpus", "no-such")
    with pytest.raises(InputError, match="cannot be a run's name"):
        call(lab, "import", str(tmp_path), "--name", "a/b")
    call(lab, "export", "first", str(out))
    with pytest.raises(InputError, match="not empty"):
        call(lab, "export", "first", str(out))
    call(lab, "export", "first", str(out), "--overwrite")


def test_a_hostile_folder_at_the_shell(lab: Lab, tmp_path: Path) -> None:
    """Exit code 2 and words; no control sequence of the folder's reaches the terminal."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "\x1b]0;owned\x07\x1b[2J"}))
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "../\x1b[2J.safetensors"}})
    )
    for _ in range(2):
        done = tui_lab(lab.root, "checkpoints", "import", str(folder))
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert "\x1b" not in done.stdout + done.stderr
        assert "\x07" not in done.stdout + done.stderr
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)
        (folder / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    assert not list(lab.checkpoints.iterdir())
