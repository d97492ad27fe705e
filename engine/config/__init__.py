"""Configurations: typed sections (`schema`) and the TOML files that hold them (`load`)."""

from engine.config.load import Preset, list_presets, load_file, load_preset, resolve, to_toml
from engine.config.schema import FIELDS, SECTIONS, Config, FieldSpec, find_field, from_dict

__all__ = [
    "FIELDS",
    "SECTIONS",
    "Config",
    "FieldSpec",
    "Preset",
    "find_field",
    "from_dict",
    "list_presets",
    "load_file",
    "load_preset",
    "resolve",
    "to_toml",
]
