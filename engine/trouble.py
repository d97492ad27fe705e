"""What follows when a step goes wrong: no finite loss, a spike, no memory, no data.

Decides by the configuration's policies and acts through the trainer: alerts, a pause, a stop, a
rollback, an error that says what to change. A step that went wrong never reaches the weights;
`engine.guard` has seen to that before anything here is asked.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from engine import events
from engine.errors import EngineError
from engine.meter import Logged
from engine.out_of_memory import explain, make_room
from engine.progress import Progress

if TYPE_CHECKING:
    from engine.trainer import Trainer

ROLLBACK_LIMIT = 3
"""Rollbacks to one checkpoint after which the run pauses instead: they do not help."""
IDLE_SHARE, IDLE_STEPS = 0.01, 100
"""An expert with less than this of the even share, in so many logged steps in a row, is idle."""


class Trouble:
    """One run's troubles: what of them has been told, and what to do about the next."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._told = trainer.parts.guard.verdicts()
        self._short_at = -1  # the step at which memory ran out last
        self._idle = 0  # logged steps in a row in which some expert was idle

    # Losses and gradients ------------------------------------------------------------------------

    def look_at(self, logged: Logged) -> None:
        """Shout about updates that were not made, and about spikes; do what the policy says."""
        before, now = self._told, logged.verdicts
        self._told = now
        self._look_at_experts(logged)
        policy = self.trainer.parts.config.train
        skipped = now.skipped - before.skipped
        spiked = now.spikes - before.spikes
        finite = math.isfinite(logged.loss) and math.isfinite(logged.grad_norm)
        if spiked and (finite or spiked == skipped):
            self._about_spike(logged, skipped)
        elif skipped:
            self._about_nonfinite(logged, skipped, now.in_a_row)
        if skipped and now.in_a_row >= policy.nan_patience and not spiked:
            self._act(policy.on_nan, logged.step, f"{now.in_a_row} skipped updates in a row")
        elif spiked and policy.on_spike in ("pause", "rollback"):
            self._act(policy.on_spike, logged.step, "a spike of the gradient norm")

    def _look_at_experts(self, logged: Logged) -> None:
        """An expert without tokens gets no gradient either, and does not come back by itself."""
        if not logged.router:
            return
        _, _, idlest, _ = logged.router
        self._idle = self._idle + 1 if idlest < IDLE_SHARE else 0
        if self._idle == IDLE_STEPS:
            self.trainer.alert(
                "warning",
                f"step {logged.step}: an expert has been idle for {IDLE_STEPS} logged steps",
                "a larger model.balance_loss spreads the tokens; fewer experts (model.n_expert)",
            )

    def _about_nonfinite(self, logged: Logged, skipped: int, in_a_row: int) -> None:
        if in_a_row > 3 and in_a_row & (in_a_row - 1):
            return  # said at 1, 2, 3, 4, 8, 16 … in a row
        many = f" ({skipped} updates since the last logged step)" if skipped > 1 else ""
        self.trainer.alert(
            "error",
            f"step {logged.step}: loss or gradient is not finite; the update was skipped{many}",
            "a lower learning rate or a longer warm-up is the usual remedy",
        )

    def _about_spike(self, logged: Logged, skipped: int) -> None:
        done = "the update was skipped" if skipped else "the update was made all the same"
        factor = self.trainer.parts.config.train.spike_factor
        self.trainer.alert(
            "warning",
            f"step {logged.step}: gradient norm {logged.grad_norm:.3g} is over {factor:g} times "
            f"the usual one; {done}",
            "" if skipped else "train.on_spike can skip it, pause, or roll back",
        )

    def _act(self, policy: str, step: int, why: str) -> None:
        trainer = self.trainer
        if trainer.steering.paused or trainer.steering.ending:
            return
        if policy == "rollback" and self.roll_back(why):
            return
        if policy in ("pause", "rollback"):
            trainer.alert("error", f"paused: {why}")
            self._save()
            trainer.steering.pause()
        elif policy == "stop":
            trainer.alert("error", f"stopped: {why}")
            trainer.steering.end("not finite")

    def _save(self) -> None:
        if self.trainer.parts.config.save.policy != "none":
            self.trainer.save("rolling")

    def roll_back(self, why: str) -> bool:
        """Weights, moments and step count back to the newest sound checkpoint; the data goes on
        behind what was seen, since the same batches would do the same again (as PaLM's training
        did, section 5.1). Says False when that cannot be, and why."""
        trainer, parts = self.trainer, self.trainer.parts
        info = parts.keeper.newest_sound()
        if info is None:
            trainer.alert("error", "no rollback: the run has no checkpoint", "save.every, or s")
            return False
        before = trainer.progress
        again = before.rollbacks + 1 if before.rollback_to == info.step else 1
        if again > ROLLBACK_LIMIT:
            trainer.alert(
                "error",
                f"no rollback: {ROLLBACK_LIMIT} to step {info.step:,} did not help",
                "lower the learning rate (l) before it goes on",
            )
            return False
        with trainer.updating:
            saved = parts.keeper.restore(info)
            progress = Progress.from_dict(saved.state.get("progress"))
            progress.seconds, progress.lr_scale = before.seconds, before.lr_scale
            progress.rollbacks, progress.rollback_to = again, info.step
            trainer.progress = progress
            parts.meter.forget()
            trainer.mark()
        self._told = parts.guard.verdicts()
        trainer.emit(
            events.RolledBack(
                step=info.step, from_step=before.step, path=str(info.path), reason=why
            )
        )
        return True

    # Memory --------------------------------------------------------------------------------------

    def out_of_memory(self, error: BaseException) -> None:
        """Go back to the last step boundary; return to try once more, or save and raise.

        Raises OutOfMemory. An optimiser that ran out of memory may have changed some weights and
        not others: then nothing is saved, and the newest checkpoint stands.
        """
        trainer, parts = self.trainer, self.trainer.parts
        step, stage = trainer.progress.step + 1, trainer.stage
        trainer.step_back()
        make_room(error, parts.device)
        if self._short_at != step and stage != "optimizer":
            self._short_at = step
            trainer.alert("warning", f"out of memory at step {step} ({stage}): tried once more")
            return
        config = parts.config
        problem = explain(
            stage,
            step,
            trainer.run,
            config,
            parts.tokenizer.vocab_size,
            parts.device.type,
            parts.precision,
        )
        if stage == "optimizer":
            problem.title += "; the weights may be half changed and are not saved"
        elif config.save.policy != "none":
            trainer.save("final")
        parts.keeper.close(trainer.emit)
        raise problem from error

    def aside(self, what: str, error: BaseException) -> EngineError:
        """Memory ran out in something beside the training, which goes on."""
        make_room(error, self.trainer.parts.device)
        problem = EngineError(
            f"out of memory while {what}", "training goes on; ask for less, or free some memory"
        )
        self.trainer.alert("error", problem.title, problem.hint)
        return problem

    # Data ----------------------------------------------------------------------------------------

    def no_data(self, seconds: float) -> None:
        """A read of the corpus has not come back for so long."""
        self.trainer.alert(
            "warning",
            f"no data for {seconds:.0f} s: reading the corpus hangs",
            "a network file system? stopping (x) still saves",
        )
