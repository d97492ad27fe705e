"""The table of keys against the screens: every key does something, and no key does two things."""

from __future__ import annotations

import importlib
from collections import Counter

import pytest

from tui_lab.app import LabApp
from tui_lab.keys import KEYS, SCREENS, Key, keys_of


def screen_class(name: str) -> type:
    module = importlib.import_module(f"tui_lab.screens.{name}")
    return getattr(module, "".join(part.title() for part in name.split("_")) + "Screen")


@pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{key.screen or 'app'}-{key.id}")
def test_every_action_exists(key: Key):
    name = key.action.partition("(")[0]
    owner = screen_class(key.screen) if key.screen and not name.startswith("app.") else LabApp
    assert hasattr(owner, f"action_{name.removeprefix('app.').removeprefix('screen.')}")


@pytest.mark.parametrize("screen", SCREENS)
def test_no_key_means_two_things_on_a_screen(screen: str):
    pressed = [name for key in (*keys_of(screen), *keys_of("")) for name in key.keys.split(",")]
    assert [name for name, times in Counter(pressed).items() if times > 1] == []


@pytest.mark.parametrize("screen", SCREENS)
def test_ids_are_unique_and_every_key_is_explained(screen: str):
    keys = list(keys_of(screen))
    assert len({key.id for key in keys}) == len(keys)
    assert all(key.help and (key.label or not key.footer) for key in keys)
