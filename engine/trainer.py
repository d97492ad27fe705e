"""The training loop. It takes `emit` and an inbox, and knows nothing of who listens or asks.

Everything that a person can ask for is applied between two steps, never inside one. What a step
computes stays on the device: only a logged step brings its numbers over, and without waiting.
"""

from __future__ import annotations

import math
import threading
import time

from torch import Tensor

from engine import collector, control, events
from engine.errors import EngineError
from engine.evaluation import evaluate
from engine.events import Emit
from engine.feed import FeedStopped
from engine.generation.generate import generate
from engine.generation.params import pinned_params
from engine.keeper import set_random_states
from engine.objectives import Reported, mean
from engine.out_of_memory import is_out_of_memory
from engine.parts import Parts
from engine.progress import Progress
from engine.schedule import learning_rate
from engine.steering import Steering
from engine.trouble import Trouble


class LeftBehind(Exception):
    """The run was ended from another thread while this one was inside a step."""


class Trainer:
    """One run. `loop` is the training; the other methods are what happens between two steps."""

    def __init__(
        self, run: str, parts: Parts, emit: Emit, inbox: control.Inbox, progress: Progress
    ) -> None:
        self.run, self.parts, self.emit, self.progress = run, parts, emit, progress
        self.steering = Steering(self, inbox)
        self.trouble = Trouble(self)
        self.evaluated_at = -1
        self.phase = self.stage = ""
        self.moved = time.monotonic()  # when something was last got done
        # Held while weights and moments change, and while they are copied: whoever holds it finds
        # them at the step boundary that `at` describes.
        self.updating = threading.RLock()
        self.at = parts.keeper.boundary(progress, parts.feed.state())
        self.left: events.Finished | None = None
        self.settled = False  # a step was made since this began

    def train(self) -> events.Finished:
        """Train until the configured length is reached or someone asks to stop.

        Raises OutOfMemory when a step does not fit, and what the data's reading raises.
        """
        self.say_phase("compiling" if self.parts.keeper.compiled else "training")
        while True:
            try:
                self.loop()
                return self.finish()
            except FeedStopped:
                self.step_back()
            except LeftBehind:
                assert self.left is not None
                return self.left
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.trouble.out_of_memory(error)

    def loop(self) -> None:
        """Steps, until the run's length is reached or it is asked to end."""
        parts, steering = self.parts, self.steering
        config, optimizer, objective = parts.config, parts.optimizer, parts.objective
        parts.model.train()

        while True:
            steering.obey()
            if steering.ending or self.progress.step >= parts.total_steps:
                return
            parts.meter.start()
            lr = self.scheduled_rate() * self.progress.lr_scale
            optimizer.set_rate(lr)

            # One update from `accumulate` micro-batches, divided by the trained tokens of the
            # whole window: the same windows in one or in four pieces give the same update.
            self.stage = "data"
            window = [self.next_batch() for _ in range(config.train.accumulate)]
            count = sum(objective.trained_tokens(batch) for batch in window)
            losses = []
            for batch in window:
                if steering.must_drop_the_step():
                    raise FeedStopped
                self.stage = "forward"
                with parts.autocast():
                    part = parts.loss(batch)
                minimised = part.minimised / count
                self.stage = "backward"
                (parts.scaler.scale(minimised) if parts.scaler else minimised).backward()
                losses.append(part.reported())

            loss = mean(losses, count)
            if parts.scaler:
                parts.scaler.unscale_(optimizer)
            grad_norm = optimizer.gradient_norm()
            with self.updating:
                if self.left:
                    raise LeftBehind
                self.stage = "optimizer"
                self.update(grad_norm, parts.guard.allows(loss.nats, grad_norm))
                optimizer.zero_grad()
                self.progress.step += 1
                self.progress.tokens += count
                self.mark()
                self.stage = ""
            parts.meter.stop(count)
            self.after_step(lr, loss, grad_norm)

    def next_batch(self) -> Tensor:
        """(B, T + 1) token ids on the device."""
        batch = self.parts.feed.next(self.steering.must_leave, on_silence=self.trouble.no_data)
        return batch.to(self.parts.device, non_blocking=True)

    def scheduled_rate(self) -> float:
        config = self.parts.config
        return learning_rate(
            self.progress.step, config.schedule, config.optimizer.lr, self.parts.total_steps
        )

    def set_learning_rate(self, lr: float | None) -> tuple[str, str]:
        """Scale the schedule to go through `lr` here; None gives it back. Before, and after."""
        scheduled, progress = self.scheduled_rate(), self.progress
        before = f"{scheduled * progress.lr_scale:.3g}"
        with self.updating:
            progress.lr_scale = lr / scheduled if lr is not None and scheduled else 1.0
            self.mark()
        return before, f"{scheduled * progress.lr_scale:.3g}"

    def update(self, grad_norm: Tensor, allowed: Tensor | bool) -> None:
        """Make the update if it is `allowed`: what is not finite never reaches the weights.

        On CUDA the verdict stays on the device: the optimiser reads it there and skips.
        """
        optimizer, scaler = self.parts.optimizer, self.parts.scaler
        if scaler:
            optimizer.clip(grad_norm)
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.update(grad_norm, allowed)

    def mark(self) -> None:
        """Weights and moments are at a step boundary now; remember all else that belongs to it."""
        self.at = self.parts.keeper.boundary(self.progress, self.parts.feed.state())
        self.moved = time.monotonic()

    def step_back(self) -> None:
        """Drop the step that was begun: its gradients, its batches, its random numbers."""
        self.parts.optimizer.zero_grad()
        self.parts.feed.restore(self.at.batches)
        set_random_states(self.at.random)

    # Between two steps --------------------------------------------------------------------------

    def after_step(self, lr: float, loss: Reported, grad_norm: Tensor) -> None:
        """Log, evaluate, sample and save, as the configuration's intervals say."""
        parts, progress = self.parts, self.progress
        config, step = parts.config, progress.step
        if self.phase == "compiling":
            self.say_phase("training")
        if not self.settled:
            self.settled = True
            collector.settle()
        last = step >= parts.total_steps

        def due(every: int) -> bool:
            return last or (every > 0 and step % every == 0)

        evaluating = parts.val_windows is not None and due(config.train.eval_every)
        if evaluating or due(config.train.log_every):
            epoch, counts = parts.feed.epoch, parts.guard.counts
            parts.meter.log(step, progress.tokens, lr, epoch, loss, grad_norm, counts)
        is_best = evaluating and self.evaluate(0 if last else config.train.eval_tokens)
        keeps = not last and config.save.policy != "none"
        saving = keeps and config.save.every > 0 and step % config.save.every == 0
        self.report(wait=evaluating or saving)  # the steps before a checkpoint are told before it
        if self.progress is not progress:  # rolled back: what was due at this step is void
            return
        if config.sample.every and due(config.sample.every):
            self.sample_pinned()
        if saving:
            self.save("periodic" if config.save.policy == "all" else "rolling")
        elif keeps and is_best and config.save.policy == "all":
            self.save("best")
        self.relay()

    def relay(self) -> None:
        """Say what the thread that writes checkpoints has had to say."""
        self.parts.keeper.relay(self.emit)

    def report(self, *, wait: bool) -> None:
        """Emit the logged steps whose numbers have arrived; all of them when `wait`."""
        meter = self.parts.meter
        for logged in meter.arrived(wait=wait):
            evaluated = logged.step == self.evaluated_at
            self.emit(meter.event(logged, self.progress.val_loss if evaluated else None))
            self.trouble.look_at(logged)
        stats = meter.device_stats()
        if stats is not None:
            self.emit(stats)

    def evaluate(self, max_tokens: int = 0) -> bool:
        """Score the validation split; says whether it is the best so far. A stop ends it early
        and leaves no result."""
        parts, progress = self.parts, self.progress
        if parts.val_windows is None:
            self.alert("warning", "no validation split to evaluate", "data.val_fraction is 0")
            return False
        step = progress.step
        self.say_phase("evaluating")

        def tell(done: int, total: int) -> None:
            self.moved = time.monotonic()
            self.emit(events.EvalProgress(step=step, done=done, total=total))

        result = None
        try:
            result = evaluate(
                parts.model,
                parts.val_windows,
                parts.tokenizer.byte_lengths(),
                batch_size=parts.config.train.batch_size,
                device=parts.device,
                precision=parts.precision,
                max_tokens=max_tokens,
                should_stop=self.steering.rest,
                progress=tell,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.trouble.aside("evaluating", error)
        self.say_phase("training")
        if result is None:
            return False
        best = math.isfinite(result.loss) and (
            progress.best_val_loss is None or result.loss < progress.best_val_loss
        )
        if best:
            progress.best_val_loss, progress.best_step = result.loss, step
        progress.val_loss, self.evaluated_at = result.loss, step
        self.mark()
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
        parts, request, steering = self.parts, asked.request, self.steering
        self.say_phase("sampling")
        started = time.perf_counter()
        pieces: list[str] = []
        count, reason, error = 0, "cancelled", ""

        def given_up() -> bool:  # a conversation is finished before a pause begins
            return steering.must_leave() or steering.inbox.is_cancelled(request)

        try:
            for token in generate(
                parts.model,
                parts.tokenizer,
                asked.prompt,
                asked.params,
                continued=asked.continued,
                device=parts.device,
                should_stop=given_up if request else steering.rest,
            ):
                self.moved = time.monotonic()
                count, reason = count + 1, token.reason or reason
                pieces.append(token.text)
                if request:
                    self.emit(events.TokenGenerated(request=request, **token._asdict()))
        except EngineError as problem:  # a prompt that cannot be spelt must not end the training
            reason, error = "error", str(problem)
        except (RuntimeError, MemoryError) as problem:
            if not is_out_of_memory(problem):
                raise
            reason, error = "error", str(self.trouble.aside("sampling", problem))
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
        with self.updating:
            self.progress.seconds += self.parts.meter.take_seconds()
            self.mark()
            evaluated = self.evaluated_at == self.progress.step
            self.parts.keeper.save(self.at, self.progress.val_loss if evaluated else None, kind)
        self.say_phase("training")

    def say_phase(self, phase: str) -> None:
        if phase == "training" and self.steering.paused:
            phase = "paused"
        self.phase = phase
        self.moved = time.monotonic()
        self.emit(events.Phase(phase=phase, step=self.progress.step))

    def alert(self, level: str, title: str, hint: str = "") -> None:
        self.emit(events.Alert(level=level, title=title, hint=hint, step=self.progress.step))

    def finish(self) -> events.Finished:
        """Keep what is to be kept, wait until it is durable, and say how it ended."""
        parts, steering = self.parts, self.steering
        self.report(wait=True)
        if steering.save_at_end and parts.config.save.policy != "none":
            self.save("final")
        parts.keeper.close(self.emit)
        parts.feed.close()
        finished = self.finished(steering.ending or "completed")
        self.emit(finished)
        return finished

    def finished(self, reason: str) -> events.Finished:
        parts, progress = self.parts, self.progress
        return events.Finished(
            run=self.run,
            step=progress.step,
            tokens=progress.tokens,
            reason=reason,
            seconds=progress.seconds + parts.meter.take_seconds(),
            checkpoint=parts.keeper.newest,
            loss=parts.meter.last_loss,
            val_loss=progress.val_loss,
            best_val_loss=progress.best_val_loss,
            best_step=progress.best_step,
        )

    def leave(self, stop: control.Stop, seconds: float) -> events.Finished | None:
        """End the run from another thread: the last step boundary is saved, and the step that is
        under way never reaches the weights. None when that cannot be within `seconds`."""
        if not self.updating.acquire(timeout=seconds):
            return None
        try:
            if self.steering.ending:
                return None  # the loop has heard it and is on its way out
            keeper = self.parts.keeper
            if stop.save and self.parts.config.save.policy != "none":
                keeper.save(self.at, None, "final")
                keeper.close(self.emit)
            self.left = self.finished(stop.reason)
        finally:
            self.updating.release()
        self.emit(self.left)
        return self.left
