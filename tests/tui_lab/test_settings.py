"""Settings are remembered, and no file on disk can stop the app."""

from __future__ import annotations

from pathlib import Path

import pytest

from tui_lab.settings import Settings, config_dir


def test_what_is_saved_is_loaded(tmp_path: Path):
    path = tmp_path / "deep" / "settings.toml"
    settings = Settings(theme="light", refresh=2.0, path=path)
    settings.of("console")["temperature"] = 0.5
    settings.save()
    assert Settings.load(path) == settings


@pytest.mark.parametrize(
    "text", ["theme = 3\nrefresh = 'fast'\nmemory = 1", "not [toml", "\x00\xff", "refresh = 1e9"]
)
def test_a_wrong_file_gives_usable_settings(tmp_path: Path, text: str):
    path = tmp_path / "settings.toml"
    path.write_bytes(text.encode("latin-1"))
    settings = Settings.load(path)
    assert settings.theme == "dark"
    assert 0.5 <= settings.refresh <= 30.0
    assert settings.of("console") == {}


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    Settings(path=blocked / "settings.toml").save()
    assert blocked.read_text() == ""


def test_the_environment_names_the_directory(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("TUI_LAB_CONFIG_DIR", str(tmp_path))
    assert config_dir() == tmp_path
