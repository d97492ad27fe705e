"""What the fork server imports once, so that a trial need not: torch, and all that a run needs.

Nothing is computed here: torch's threads, once started, do not come along into a forked child.
"""

from __future__ import annotations

# ruff: noqa: E402, F401
from tests.campaign import wall

wall.install()

import torch
import torch._dynamo  # the first optimiser step would import it, for half a second

import engine.assembly
import engine.device
import engine.generation.default
import engine.machine
import engine.session
import tests.campaign.commands
import tests.campaign.processes
import tui_lab.app
import tui_lab.cli
import tui_lab.headless
import tui_lab.launch

torch.set_num_threads(1)
