"""The past of a run that goes on in this process, folded from its own files. Blocking reads: call
it off the app's thread.
"""

from __future__ import annotations

from engine.events import CheckpointSaved, ControlApplied, EvalDone, StepDone
from engine.follow import Follower
from tui_lab.state import RunState

CHARTED = (StepDone, EvalDone, CheckpointSaved, ControlApplied)
"""What leaves something on a chart."""


def past_of(run: RunState) -> RunState:
    """What happened before the step at which `run` was resumed."""
    assert run.started is not None
    past = RunState(run.config, run.name, run.smoothing)
    past.max_steps = run.max_steps
    follower = Follower(run.path)
    while not follower.caught_up:
        for event in follower.poll():
            if isinstance(event, CHARTED) and event.step <= run.started.step:
                past.apply(event)
    return past
