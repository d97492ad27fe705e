"""Checkpoints: their layout, saving, loading, looking into them, proving and deleting them.

    layout      names, listing          save        the protocol, in the background (torch)
    tensors     the safetensors format  load        proven tensors (torch)
    proof       hashes and manifests    inspection  headers, statistics
    retention   what a run keeps        snapshot    a moment in host memory (torch)
    find        references such as `run@best`

All but `save`, `snapshot` and `load` is free of torch, and this package imports none of those.
"""

from engine.checkpoints.find import delete, delete_run, find_checkpoint, find_run_folder
from engine.checkpoints.inspection import (
    Inspection,
    TensorStatistics,
    inspect,
    tensor_statistics,
)
from engine.checkpoints.layout import CheckpointInfo, check_name, describe, list_checkpoints
from engine.checkpoints.proof import newest_verified, verify
from engine.checkpoints.tensors import TensorInfo

__all__ = [
    "CheckpointInfo",
    "Inspection",
    "TensorInfo",
    "TensorStatistics",
    "check_name",
    "delete",
    "delete_run",
    "describe",
    "find_checkpoint",
    "find_run_folder",
    "inspect",
    "list_checkpoints",
    "newest_verified",
    "tensor_statistics",
    "verify",
]
