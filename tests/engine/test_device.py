"""Devices by name, precision by hardware, memory, peaks; the refusals in words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine import device, machine, peaks
from engine.errors import ConfigError, DeviceError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path / "cache"))
    peaks.measured_peak.cache_clear()


@pytest.mark.parametrize("name", ["gpu", "cdua", "cuda:x", "cuda:-1", "", "cpu:0", "cuda:0\x1b[2J"])
def test_names_that_are_no_device_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="unknown device"):
        device.choose_device(name)


def test_a_wrong_name_is_refused_without_loading_torch() -> None:
    """The user waits a second for torch only where the answer depends on it."""
    code = (
        "import sys\nfrom engine.device import choose_device\n"
        "from engine.errors import DeviceError\n"
        "try: choose_device('gpu')\n"
        "except DeviceError: sys.exit('torch' in sys.modules)\n"
        "sys.exit(3)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_auto_prefers_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device.choose_device("auto") == CPU
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device.choose_device("AUTO").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.choose_device("auto") == torch.device("cuda", 0)
    assert device.choose_device("cuda:1") == torch.device("cuda", 1)


def test_a_gpu_that_is_not_there_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device 'cuda' asked for") as caught:
        device.choose_device("cuda")
    assert "--device cpu" in caught.value.hint
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device 'mps' asked for"):
        device.choose_device("mps")


def test_an_index_beyond_the_gpus_names_those_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA T4")
    with pytest.raises(DeviceError, match=r"'cuda:3' asked for, .*cuda:0 \(NVIDIA T4\)"):
        device.choose_device("cuda:3")


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_a_cpu_takes_bfloat16_only_with_units_for_it(
    native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cpu_has_bfloat16", lambda: native)
    assert device.choose_precision(CPU, "auto") == expected
    assert device.choose_precision(CPU, "float32") == "float32"


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_a_gpu_takes_bfloat16_from_ampere_on(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA Example")
    gpu = torch.device("cuda", 0)
    assert device.choose_precision(gpu, "auto") == expected
    assert device.needs_scaler(expected) is (expected == "float16")
    if expected == "float16":
        with pytest.raises(ConfigError, match="no bfloat16"):
            device.choose_precision(gpu, "bfloat16")


def test_float16_on_a_cpu_is_refused_with_what_to_use() -> None:
    with pytest.raises(ConfigError, match="float16") as caught:
        device.choose_precision(CPU, "float16")
    assert "train.precision=" in caught.value.hint


def test_autocast_sets_the_precision_of_products_alone() -> None:
    matrix = torch.ones(4, 4)
    with device.autocast(CPU, "bfloat16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
        assert torch.nn.functional.layer_norm(matrix, (4,)).dtype == torch.float32
    with device.autocast(CPU, "float32"):
        assert (matrix @ matrix).dtype == torch.float32


def test_a_second_gpu_is_the_one_that_is_meant_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not, an event waits for the first one, and a checkpoint is written before the
    second has copied it."""
    meant = [0]

    class Meant:
        def __init__(self, which: torch.device) -> None:
            self.index = which.index

        def __enter__(self) -> None:
            meant.append(self.index)

        def __exit__(self, *_: object) -> None:
            meant.pop()

    monkeypatch.setattr(torch.cuda, "device", Meant)
    with device.as_current(torch.device("cuda", 1)):
        assert meant[-1] == 1
    with device.as_current(torch.device("cpu")):
        assert meant == [0]


def test_memory_of_a_cpu_is_this_process_and_its_limit() -> None:
    before = device.memory(CPU)
    ballast = bytearray(60_000_000)
    after = device.memory(CPU)
    assert after.used - before.used > 50_000_000
    assert after.used <= after.peak <= after.total
    assert after.reserved is None
    assert len(ballast) == 60_000_000


def test_published_peaks_match_cuda_names() -> None:
    """The longer name wins, and a name inside another word does not count."""
    tera = 1e12
    assert peaks.published_peak("NVIDIA H100 80GB HBM3", "bfloat16") == 989 * tera
    assert peaks.published_peak("NVIDIA H100 PCIe", "bfloat16") == 756 * tera
    assert peaks.published_peak("NVIDIA H200", "float32") == 67 * tera
    assert peaks.published_peak("NVIDIA A100-SXM4-40GB", "bfloat16") == 312 * tera
    assert peaks.published_peak("NVIDIA L40S", "bfloat16") == 362 * tera
    assert peaks.published_peak("NVIDIA GeForce RTX 4090", "bfloat16") == 165.2 * tera
    assert peaks.published_peak("Tesla T4", "float16") == 65 * tera
    assert peaks.published_peak("NVIDIA T400 4GB", "float16") == 0.0
    assert peaks.published_peak("NVIDIA GH200 480GB", "bfloat16") == 989 * tera


def test_a_cpus_peak_is_measured_remembered_and_only_ever_raised() -> None:
    """Other work on the machine can make one measurement too low, never too high."""
    flops, source = device.peak_flops(CPU, "float32")
    assert flops > 1e8
    assert source == "measured here"
    file = machine.cache_dir() / "peaks.json"
    (key,) = json.loads(file.read_text())
    threads = torch.get_num_threads()
    assert peaks.remembered_peak(machine.cpu_name(), "float32", threads) == flops
    file.write_text(json.dumps({key: 1e18}))
    peaks.measured_peak.cache_clear()
    assert device.peak_flops(CPU, "float32")[0] == 1e18


@pytest.mark.parametrize("spoilt", ["", "[1, 2]", '{"a": "b"}', "\x00"])
def test_a_spoilt_cache_is_measured_over(spoilt: str) -> None:
    file = machine.cache_dir() / "peaks.json"
    file.parent.mkdir(parents=True)
    file.write_text(spoilt)
    assert device.peak_flops(CPU, "float32")[0] > 0


def test_the_cpus_name_tells_its_cores() -> None:
    assert device.device_name(CPU).endswith(("core", "cores"))


class _FakeNvml:
    """Stands in for a driver: the machine that runs the tests has none."""

    NVMLError = ValueError
    NVML_TEMPERATURE_GPU = 0

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if not uuid.startswith("GPU-"):
            raise ValueError
        return uuid

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> object:
        return type("Rates", (), {"gpu": 97})

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return 71

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        raise ValueError("not supported on this card")


def test_gpu_load_reads_what_the_card_tells_and_leaves_out_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "nvml", lambda: _FakeNvml())
    machine._gpu_handle.cache_clear()
    assert machine.gpu_load("1234") == machine.GpuLoad(97.0, 71, None)
    machine._gpu_handle.cache_clear()


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "nvml", lambda: None)
    machine._gpu_handle.cache_clear()
    assert machine.gpus() == []
    assert machine.gpu_load("1234") == machine.GpuLoad()
    machine._gpu_handle.cache_clear()


def test_products_in_8_bits_are_refused_where_there_are_no_units_for_them() -> None:
    with pytest.raises(ConfigError, match=r"train\.float8 = true"):
        device.check_float8(CPU, "bfloat16")


@pytest.mark.parametrize(
    ("flags", "cache", "told"),
    [
        ("fpu avx2 avx512f avx512_bf16", 32 << 20, "AMD EPYC (AVX-512 bf16, 32 MB cache), "),
        ("fpu avx2", 8 << 20, "AMD EPYC (AVX2, 8 MB cache), "),
        ("fpu avx2", 0, "AMD EPYC (AVX2), "),
        ("fpu", 0, "AMD EPYC, "),
    ],
)
def test_processors_of_one_name_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, flags: str, cache: int, told: str
) -> None:
    """A virtual machine's are all called alike: one's measured peak is not another's."""
    monkeypatch.setattr(machine, "last_cache", lambda: cache)
    monkeypatch.setattr(machine, "_cpuinfo", lambda: {"model name": "AMD EPYC", "flags": flags})
    assert machine.cpu_name().startswith(told)
    assert machine.cpu_has_bfloat16() is ("bf16" in flags)
