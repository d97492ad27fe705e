"""The form's texts: read back as they were shown, refused in the engine's words."""

from __future__ import annotations

import pytest

from engine.config import FIELDS, list_presets, load_preset
from engine.lab import Lab
from tests.tui_lab import fakes
from tui_lab.form import MAIN, NEEDS, Form, as_text, groups

LAB = Lab.find(".")


@pytest.mark.parametrize("preset", [preset.name for preset in list_presets(LAB)])
def test_every_value_of_every_preset_survives_the_form(preset: str):
    config = load_preset(LAB, preset)
    form = Form(fakes.config())
    for key in FIELDS:
        form.put(key, as_text(FIELDS[key], config.get(key)))
    checked = form.check()
    assert checked is not None
    assert {key: checked.get(key) for key in FIELDS} == {key: config.get(key) for key in FIELDS}


@pytest.mark.parametrize("prompts", [("\n",), ("a", "b"), ("[x]",), (" a ",), ("",), ("\x1b[31m",)])
def test_prompts_of_any_kind_are_read_back(prompts: tuple[str, ...]):
    spec = FIELDS["sample.prompts"]
    text = as_text(spec, prompts)
    assert spec.parse(text) == prompts
    assert "\x1b" not in text and "\n" not in text


def test_each_wrong_field_has_its_own_refusal():
    form = Form(fakes.config())
    form.put("model.n_layer", "many")
    form.put("optimizer.lr", "-1")
    assert form.check() is None
    assert set(form.errors) == {"model.n_layer", "optimizer.lr"}
    assert "a whole number between 1 and 1000" in form.errors["model.n_layer"].title


def test_what_two_fields_say_together_is_put_at_one_of_them():
    form = Form(fakes.config())
    form.put("model.n_head", "5")
    assert form.check() is None
    assert set(form.errors) == {"model.n_head"}
    form.put("model.n_head", "6")
    form.put("train.max_steps", "0")
    assert form.check() is None
    assert "no length" in form.errors[""].title


def test_the_main_fields_exist():
    assert set(MAIN) <= set(FIELDS)


def test_every_field_has_its_place_in_one_group():
    """A field that is forgotten there could never be typed in."""
    shown = [key for _, keys in groups() for key in keys]
    assert sorted(shown) == sorted(FIELDS)


def test_fields_that_do_nothing_say_what_they_need():
    form = Form(fakes.config())
    assert set(NEEDS) <= set(FIELDS)
    assert form.idle("model.n_layer") == ""
    assert form.idle("model.rope_base") == "needs rope"
    assert form.idle("model.rope_factor") == "needs rope"
    assert form.idle("model.balance_loss") == "needs n_expert"
    form.put("model.position", "rope")
    assert form.idle("model.rope_base") == ""
    assert form.idle("model.rope_factor") == "needs rope_scaling"
    form.put("model.rope_scaling", "yarn")
    form.put("model.n_expert", "4")
    assert form.idle("model.rope_factor") == form.idle("model.balance_loss") == ""


@pytest.mark.parametrize(
    ("key", "text", "at"),
    [
        ("model.n_kv_head", "4", "model.n_kv_head"),
        ("model.rope_scaling", "yarn", "model.rope_scaling"),
        ("model.sink_tokens", "4", "model.sink_tokens"),
        ("model.window_layers", "alternate", "model.window_layers"),
        ("model.n_expert", "1", "model.n_expert"),
    ],
)
def test_what_does_not_go_together_is_refused_at_the_field(key: str, text: str, at: str):
    form = Form(fakes.config())
    form.put(key, text)
    assert form.check() is None
    assert set(form.errors) == {at}
