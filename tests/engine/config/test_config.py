"""Configurations: what is accepted, and that what is refused is named with its remedy."""

from __future__ import annotations

import pytest

from engine.config import (
    FIELDS,
    Config,
    from_dict,
    list_presets,
    load_file,
    load_preset,
    resolve,
    to_toml,
)
from engine.config.load import parse_assignments
from engine.errors import ConfigError
from engine.lab import Lab

MINIMAL = {"train": {"max_steps": 10}}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"model": {"n_layers": 3}}, "did you mean 'model.n_layer'"),
        ({"modle": {}}, "did you mean 'model'"),
        ({"lr": 3}, "unknown section [lr]"),
        ({"model": 3}, "must be a section"),
        ({"train": {"lr": 3}}, "did you mean 'optimizer.lr'"),
        ({"optimizer": {"lr": "fast"}}, "optimizer.lr = 'fast': not a number"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr = nan"),
        ({"optimizer": {"lr": -1}}, "of at least 0"),
        ({"optimizer": {"betas": [0.9]}}, "two numbers"),
        ({"model": {"n_layer": True}}, "a whole number"),
        ({"model": {"n_layer": 2.5}}, "a whole number"),
        ({"model": {"n_head": 5}}, "does not divide"),
        ({"data": {"tokenizer": "bqe"}}, "did you mean 'bpe'"),
        ({"train": {"max_steps": 0}}, "no length"),
        ({"sample": {"prompts": [3]}}, "a list of texts"),
    ],
)
def test_a_bad_value_is_refused_by_name(values: dict, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(MINIMAL | values, "file.toml")
    assert named in str(caught.value) and "file.toml" in str(caught.value)


def test_toml_round_trips_every_field(lab: Lab) -> None:
    config = from_dict(
        MINIMAL
        | {"title": "t", "sample": {"prompts": ['say "hi"\n', ""]}, "model": {"bias": False}},
        "x",
    )
    path = lab.root / "c.toml"
    path.write_text(to_toml(config))
    assert load_file(path) == config


def test_every_field_has_help_and_parses_its_own_default() -> None:
    for spec in FIELDS.values():
        assert spec.help and spec.parse(spec.default) == spec.default
        as_text = ",".join(map(str, spec.default)) if spec.kind == "floats" else str(spec.default)
        if spec.kind != "strings":
            assert spec.parse(as_text) == spec.default


def test_text_values_are_typed_by_their_field() -> None:
    config = from_dict(MINIMAL, "x").with_values(
        {
            "train.max_tokens": "1e6",
            "optimizer.betas": "0.8, 0.9",
            "model.bias": "no",
            "sample.prompts": '["a", "b"]',
        }
    )
    assert config.train.max_tokens == 1_000_000 and config.optimizer.betas == (0.8, 0.9)
    assert config.model.bias is False and config.sample.prompts == ("a", "b")


def test_naming_one_length_replaces_the_presets(lab: Lab) -> None:
    config = resolve(lab, "micro", {"train.epochs": 2})
    assert (config.train.max_steps, config.train.epochs) == (0, 2.0)
    both = resolve(lab, "micro", {"train.epochs": 2, "train.max_steps": 5})
    assert (both.train.max_steps, both.train.epochs) == (5, 2.0)


def test_a_labs_own_preset_hides_the_shipped_one(lab: Lab) -> None:
    (lab.configs / "micro.toml").write_text("[train]\nmax_steps = 7\n")
    assert load_preset(lab, "micro").train.max_steps == 7
    assert {preset.name: preset.own for preset in list_presets(lab)}["micro"] is True


def test_every_shipped_preset_is_valid(lab: Lab) -> None:
    names = {preset.name for preset in list_presets(lab)}
    assert {"micro", "char-cpu", "char", "nano", "small", "medium"} <= names
    for name in names:
        assert load_preset(lab, name).title


def test_unknown_presets_broken_files_and_assignments_are_refused(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="did you mean 'micro'"):
        resolve(lab, "mikro")
    broken = lab.root / "broken.toml"
    broken.write_text("[train\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        resolve(lab, str(broken))
    with pytest.raises(ConfigError, match="cannot read"):
        resolve(lab, str(lab.root / "absent.toml"))
    with pytest.raises(ConfigError, match="sets nothing"):
        parse_assignments(["optimizer.lr"])


@pytest.mark.parametrize("key", ["sample.prompts", "data.corpus"])
def test_text_that_no_file_can_hold_is_refused(key: str) -> None:
    """A stray byte of a command line would fail the first save instead."""
    with pytest.raises(ConfigError, match=key):
        Config().with_values({key: "a\udcff"})
