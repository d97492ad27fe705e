"""The wheel, installed and used in an empty directory; the checkout cannot be imported there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.xdist_group("wheel"), pytest.mark.slow]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    command = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run(
        [sys.executable, *command, "--target", str(target), str(wheel)], check=True, timeout=120
    )
    return target


class Installed:
    """Runs the installed program. Without `site` no `.pth` file can lead back to the checkout."""

    def __init__(self, target: Path, directory: Path) -> None:
        self.directory = directory
        self.target = target
        libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith("TUI_LAB")
        } | {
            "PYTHONPATH": os.pathsep.join([str(target), *sorted(libraries)]),
            "HOME": str(directory.parent),
            "OMP_NUM_THREADS": "1",
        }

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-S", "-P", *arguments],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=150,
            stdin=subprocess.DEVNULL,
        )

    def __call__(self, *arguments: str) -> str:
        result = self.python(str(self.target / "bin" / "tui-lab"), *arguments)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout


@pytest.fixture
def tui_lab(installed: Path, tmp_path: Path) -> Installed:
    empty = tmp_path / "empty"
    empty.mkdir()
    return Installed(installed, empty)


def test_the_wheel_carries_what_an_empty_directory_lacks(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    for preset in (ROOT / "configs").glob("*.toml"):
        assert f"engine/_builtin/configs/{preset.name}" in names
    assert "engine/_builtin/corpus/registry.toml" in names
    assert "engine/_builtin/corpus/tiny.txt" in names
    for sheet in (ROOT / "tui_lab").rglob("*.tcss"):
        assert sheet.relative_to(ROOT).as_posix() in names, "a stylesheet without which no app"
    assert not any(name.startswith("tests/") for name in names)


def test_the_checkout_is_out_of_reach(tui_lab: Installed):
    """Else the tests below would prove nothing."""
    code = "import engine, tui_lab; print(engine.__file__, tui_lab.__file__)"
    result = tui_lab.python("-c", code)
    assert result.returncode == 0, result.stderr
    for path in result.stdout.split():
        assert Path(path).is_relative_to(tui_lab.target)


def test_lists_come_from_the_wheel(tui_lab: Installed):
    assert "Usage: tui-lab" in tui_lab("--help")
    assert "micro" in tui_lab("config", "list")
    corpora = tui_lab("corpus", "list")
    assert "python-docs" in corpora
    assert "tiny" in corpora
    assert list(tui_lab.directory.iterdir()) == [], "looking writes nothing"


def test_the_run_that_ships_can_be_talked_to(tui_lab: Installed):
    assert "hello-python" in tui_lab("runs")
    text = tui_lab("generate", "hello-python", "--prompt", "def ", "-n", "8", "--seed", "1")
    assert text.strip()
    assert list(tui_lab.directory.iterdir()) == []


def test_it_trains_and_talks_in_an_empty_directory(tui_lab: Installed):
    output = tui_lab(
        *("train", "--config", "char-cpu", "--corpus", "tiny", "--max-steps", "3"),
        *("--eval-every", "3", "--name", "first", "--device", "cpu", "--json"),
        *("--set", "sample.max_tokens=4", "--set", "model.n_layer=1"),
    )
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["step"] for line in lines if "loss" in line and "event" not in line][-1] == 3
    assert lines[-1]["event"] == "finished"
    assert (tui_lab.directory / "checkpoints" / "first" / "metrics.jsonl").is_file()
    text = tui_lab("generate", "first", "--prompt", "The ", "-n", "5", "--seed", "1")
    assert text.strip()
    assert "first" in tui_lab("runs")


def test_the_app_s_screens_are_in_the_wheel(tui_lab: Installed):
    """Every screen is composed once, from the installed files and without a terminal."""
    code = (
        "import asyncio\n"
        "from engine.lab import Lab\n"
        "from tui_lab.app import LabApp\n"
        "from tui_lab.keys import SCREENS\n"
        "async def main():\n"
        "    app = LabApp(Lab.find())\n"
        "    async with app.run_test(size=(100, 30)) as pilot:\n"
        "        for name in SCREENS:\n"
        "            app.go(name)\n"
        "            await pilot.pause(0.1)\n"
        "            print(app.screen.NAME)\n"
        "asyncio.run(main())\n"
    )
    result = tui_lab.python("-c", code)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.split() == [
        "train",
        "runs",
        "checkpoints",
        "console",
        "corpus",
        "new_run",
    ]
