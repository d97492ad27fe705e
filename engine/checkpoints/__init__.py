"""Checkpoints: their layout, saving, loading, looking into them, proving and deleting them.

    layout      names, listing          save        the protocol (torch)
    tensors     the safetensors format  load        proven tensors (torch)
    proof       hashes and manifests    inspection  headers, statistics
    retention   what a run keeps        background  saving behind training (torch)
    find        references              snapshot    a moment in host memory (torch)
    pickles     refused, and why        trusted     read all the same (torch)
    hashes      of the files            direct      past the page cache

What is not marked so is free of torch, and this package imports nothing that is marked.
"""

from engine.checkpoints.find import delete, delete_run, find_checkpoint, find_run_folder
from engine.checkpoints.inspection import (
    Inspection,
    TensorStatistics,
    inspect,
    tensor_statistics,
)
from engine.checkpoints.layout import CheckpointInfo, check_name, describe, list_checkpoints
from engine.checkpoints.proof import check_belongs, newest_verified, verify
from engine.checkpoints.tensors import TensorInfo

__all__ = [
    "CheckpointInfo",
    "Inspection",
    "TensorInfo",
    "TensorStatistics",
    "check_belongs",
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
