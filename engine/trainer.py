"""The training loop. It takes `emit` and an inbox, and knows nothing of who listens or asks.

Everything that a person can ask for is applied between two steps, never inside one. What a step
computes stays on the device: only a logged step brings two numbers over, and without waiting.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from engine import control, events
from engine.errors import EngineError
from engine.evaluation import evaluate
from engine.events import Emit
from engine.generation.generate import generate
from engine.generation.params import pinned_params
from engine.parts import Parts
from engine.progress import Progress
from engine.schedule import learning_rate

NONFINITE_LIMIT = 3
"""Steps in a row without a finite loss or gradient after which the run pauses by itself."""


@dataclass
class Trainer:
    """One run. `train` is the loop; the other methods are what happens between two steps."""

    run: str
    parts: Parts
    emit: Emit
    inbox: control.Inbox
    progress: Progress = field(default_factory=Progress)

    paused: bool = False
    steps_granted: int = 0  # single steps asked for while paused
    ending: str = ""  # why the run ends, once it does
    save_at_end: bool = True
    evaluated_at: int = -1
    phase: str = ""

    def train(self) -> events.Finished:
        """Train until the configured length is reached or someone asks to stop."""
        parts, progress = self.parts, self.progress
        config, optimizer, objective = parts.config, parts.optimizer, parts.objective
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        parts.model.train()
        self.say_phase("compiling" if config.train.compile else "training")

        while True:
            self.obey()
            if self.ending or progress.step >= parts.total_steps:
                break
            parts.meter.start()
            lr = self.scheduled_rate() * progress.lr_scale
            for group in optimizer.param_groups:
                group["lr"] = lr

            # One update from `accumulate` micro-batches, divided by the trained tokens of the
            # whole window: the same windows in one or in four pieces give the same update.
            window = [self.next_batch() for _ in range(config.train.accumulate)]
            count = sum(objective.trained_tokens(batch) for batch in window)
            loss = torch.zeros((), device=parts.device)
            for batch in window:
                with parts.autocast():
                    part = objective.loss(parts.step_model, batch) / count
                (parts.scaler.scale(part) if parts.scaler else part).backward()
                loss += part.detach()

            if parts.scaler:
                parts.scaler.unscale_(optimizer)
            grad_norm = nn.utils.clip_grad_norm_(parameters, config.optimizer.clip or math.inf)
            if parts.scaler:
                parts.scaler.step(optimizer)
                parts.scaler.update()
            elif self.is_finite(loss, grad_norm):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            progress.step += 1
            progress.tokens += count
            parts.meter.stop(count)
            self.after_step(lr, loss, grad_norm)
        return self.finish()

    def next_batch(self) -> Tensor:
        """(B, T + 1) token ids on the device."""
        batch = torch.from_numpy(self.parts.batches.next())
        if self.parts.device.type == "cuda":
            return batch.pin_memory().to(self.parts.device, non_blocking=True)
        return batch.to(self.parts.device)

    def scheduled_rate(self) -> float:
        config = self.parts.config
        return learning_rate(
            self.progress.step, config.schedule, config.optimizer.lr, self.parts.total_steps
        )

    def is_finite(self, loss: Tensor, grad_norm: Tensor) -> bool:
        """Whether the update may be made: a NaN or an infinity never reaches the weights.

        On CUDA the answer stays on the device: the fused optimiser reads it there and skips.
        """
        finite = torch.isfinite(loss) & torch.isfinite(grad_norm)
        if self.parts.device.type == "cuda":
            self.parts.optimizer.found_inf = (~finite).float()
            return True
        return bool(finite)

    # Between two steps --------------------------------------------------------------------------

    def after_step(self, lr: float, loss: Tensor, grad_norm: Tensor) -> None:
        """Log, evaluate, sample and save, as the configuration's intervals say."""
        parts, progress = self.parts, self.progress
        config, step = parts.config, progress.step
        if step == 1 and config.train.compile:
            self.say_phase("training")
        last = step >= parts.total_steps

        def due(every: int) -> bool:
            return last or (every > 0 and step % every == 0)

        evaluating = parts.val_windows is not None and due(config.train.eval_every)
        if evaluating or due(config.train.log_every):
            parts.meter.log(step, progress.tokens, lr, parts.batches.epoch, loss, grad_norm)
        is_best = evaluating and self.evaluate(0 if last else config.train.eval_tokens)
        self.report(wait=evaluating)
        if config.sample.every and due(config.sample.every):
            self.sample_pinned()
        if not last and config.save.policy != "none":
            if config.save.every and step % config.save.every == 0:
                self.save("periodic" if config.save.policy == "all" else "rolling")
            elif is_best and config.save.policy == "all":
                self.save("best")
        parts.keeper.relay(self.emit)

    def report(self, *, wait: bool) -> None:
        """Emit the logged steps whose numbers have arrived; all of them when `wait`."""
        meter = self.parts.meter
        for logged in meter.arrived(wait=wait):
            evaluated = logged.step == self.evaluated_at
            self.emit(meter.event(logged, self.progress.val_loss if evaluated else None))
            # Under float16 a gradient that overflows is the scaler's daily work.
            finite_norm = math.isfinite(logged.grad_norm) or self.parts.scaler is not None
            if math.isfinite(logged.loss) and finite_norm:
                self.progress.skipped_in_a_row = 0
            else:
                self.note_skipped(logged.step)
        stats = meter.device_stats()
        if stats is not None:
            self.emit(stats)

    def note_skipped(self, step: int) -> None:
        """Shout about an update that was not made; pause when they come in a row."""
        self.progress.skipped_in_a_row += 1
        self.alert(
            "error",
            f"step {step}: loss or gradient is not finite; the update was skipped",
            "a lower learning rate or a longer warm-up is the usual remedy",
        )
        if self.progress.skipped_in_a_row >= NONFINITE_LIMIT and not self.paused:
            self.alert("error", f"paused after {NONFINITE_LIMIT} skipped updates in a row")
            if self.parts.config.save.policy != "none":
                self.save("manual")
            self.pause()

    def evaluate(self, max_tokens: int = 0) -> bool:
        """Score the validation split; says whether it is the best so far. A stop ends it early
        and leaves no result."""
        parts, progress = self.parts, self.progress
        if parts.val_windows is None:
            self.alert("warning", "no validation split to evaluate", "data.val_fraction is 0")
            return False
        step = progress.step
        self.say_phase("evaluating")
        result = evaluate(
            parts.model,
            parts.val_windows,
            parts.tokenizer.byte_lengths(),
            batch_size=parts.config.train.batch_size,
            device=parts.device,
            precision=parts.precision,
            max_tokens=max_tokens,
            should_stop=self.rest,
            progress=lambda done, total: self.emit(
                events.EvalProgress(step=step, done=done, total=total)
            ),
        )
        self.say_phase("training")
        if result is None:
            return False
        best = math.isfinite(result.loss) and (
            progress.best_val_loss is None or result.loss < progress.best_val_loss
        )
        if best:
            progress.best_val_loss, progress.best_step = result.loss, step
        progress.val_loss, self.evaluated_at = result.loss, step
        self.emit(
            events.EvalDone(
                step=step,
                tokens=result.tokens,
                val_loss=result.loss,
                perplexity=result.perplexity,
                bits_per_byte=result.bits_per_byte,
                best=best,
                seconds=result.seconds,
            )
        )
        return best

    def sample_pinned(self) -> None:
        """Continue the configured prompts, always from the same seed."""
        settings = self.parts.config.sample
        params = pinned_params(settings)
        for prompt in settings.prompts:
            self.sample(control.Sample(prompt, params))

    def sample(self, asked: control.Sample) -> None:
        """Continue a prompt from the weights as they are; training's random state is untouched."""
        parts, request = self.parts, asked.request
        self.say_phase("sampling")
        started = time.perf_counter()
        pieces: list[str] = []
        count, reason, error = 0, "cancelled", ""
        try:
            for token in generate(
                parts.model,
                parts.tokenizer,
                asked.prompt,
                asked.params,
                device=parts.device,
                # A conversation with the live weights is finished before a pause begins.
                should_stop=(
                    (lambda: self.must_leave() or self.inbox.is_cancelled(request))
                    if request
                    else self.rest
                ),
            ):
                count, reason = count + 1, token.reason or reason
                pieces.append(token.text)
                if request:
                    self.emit(
                        events.TokenGenerated(
                            request=request,
                            index=token.index,
                            token=token.token,
                            text=token.text,
                            probability=token.probability,
                            alternatives=token.alternatives,
                        )
                    )
        except EngineError as problem:  # a prompt that cannot be spelt must not end the training
            reason, error = "error", str(problem)
        self.emit(
            events.SampleDone(
                step=self.progress.step,
                prompt=asked.prompt,
                text="".join(pieces),
                tokens=count,
                seconds=time.perf_counter() - started,
                request=request,
                reason=reason,
                error=error,
            )
        )
        self.say_phase("training")

    def save(self, kind: str) -> None:
        """Hand the state to the keeper, which copies it and writes in the background."""
        self.say_phase("saving")
        self.progress.seconds += self.parts.meter.take_seconds()
        evaluated = self.evaluated_at == self.progress.step
        self.parts.keeper.save(self.progress, self.progress.val_loss if evaluated else None, kind)
        self.say_phase("training")

    # What people ask for ------------------------------------------------------------------------

    def obey(self, *, inside: bool = False) -> None:
        """Apply what waits in the inbox; while paused, wait here for more.

        `inside` an evaluation a single step ends the wait and is taken afterwards.
        """
        if self.parts.stop_file():
            self.end("stop file")
        while True:
            for command, who in self.inbox.take():
                self.apply(command, who)
            if self.ending or not self.paused:
                return
            if self.steps_granted:
                self.steps_granted -= not inside
                return
            if self.parts.stop_file():
                self.end("stop file")
                return
            self.inbox.wait(0.5)
            self.parts.keeper.relay(self.emit)

    def apply(self, command: control.Command, who: str) -> None:
        """One command, recorded with its effect."""
        before = after = ""
        step = self.progress.step
        match command:
            case control.Pause():
                before, after = self.state_word(), "paused"
                self.pause()
            case control.Resume():
                before, after = self.state_word(), "training"
                self.resume()
            case control.Step(count):
                before, after = self.state_word(), f"{count} single step{'s' * (count > 1)}"
                self.pause()
                self.steps_granted += max(1, count)
            case control.Stop(save, reason):
                before, after = self.state_word(), reason
                self.save_at_end = save
                self.end(reason)
            case control.SaveNow():
                self.save("manual")
            case control.EvalNow():
                self.evaluate()
            case control.SetLearningRate(lr):
                scheduled = self.scheduled_rate()
                before = f"{scheduled * self.progress.lr_scale:.3g}"
                self.progress.lr_scale = lr / scheduled if lr is not None and scheduled else 1.0
                after = f"{scheduled * self.progress.lr_scale:.3g}"
            case control.Sample():
                self.sample(command)
        if isinstance(command, control.Sample) and command.request:
            return  # a conversation with the live weights is not an event of the run
        name = type(command).__name__
        said = events.ControlApplied(step=step, command=name, before=before, after=after, who=who)
        self.emit(said)

    def state_word(self) -> str:
        return "paused" if self.paused else "training"

    def pause(self) -> None:
        if not self.paused:
            self.paused = True
            self.emit(events.Paused(step=self.progress.step))

    def resume(self) -> None:
        self.steps_granted = 0
        self.progress.skipped_in_a_row = 0
        if self.paused:
            self.paused = False
            self.emit(events.Resumed(step=self.progress.step))

    def end(self, reason: str) -> None:
        self.ending = self.ending or reason

    def must_leave(self) -> bool:
        """Asked inside long work between two steps: whether it should end early."""
        return bool(self.ending) or self.inbox.holds(control.Stop)

    def rest(self) -> bool:
        """As `must_leave`, and a pause that waits is kept right here."""
        if not self.paused and self.inbox.holds(control.Pause) and not self.must_leave():
            phase = self.phase
            self.obey(inside=True)
            self.say_phase(phase)
        return self.must_leave()

    def say_phase(self, phase: str) -> None:
        if phase == "training" and self.paused:
            phase = "paused"
        self.phase = phase
        self.emit(events.Phase(phase=phase, step=self.progress.step))

    def alert(self, level: str, title: str, hint: str = "") -> None:
        self.emit(events.Alert(level=level, title=title, hint=hint, step=self.progress.step))

    def finish(self) -> events.Finished:
        """Keep what is to be kept, wait until it is durable, and say how it ended."""
        parts, progress = self.parts, self.progress
        self.report(wait=True)
        if self.save_at_end and parts.config.save.policy != "none":
            self.save("final")
        parts.keeper.close(self.emit)
        finished = events.Finished(
            run=self.run,
            step=progress.step,
            tokens=progress.tokens,
            reason=self.ending or "completed",
            seconds=progress.seconds + parts.meter.take_seconds(),
            checkpoint=parts.keeper.newest,
            loss=parts.meter.last_loss,
            val_loss=progress.val_loss,
            best_val_loss=progress.best_val_loss,
            best_step=progress.best_step,
        )
        self.emit(finished)
        return finished
