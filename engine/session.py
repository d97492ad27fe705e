"""From a configuration to a trained run: refuse bad input, prepare, make the folder, train.

Both front ends come through `run_training` and `resume_training`. Everything that can be refused
is refused before torch loads and before anything is written; the run's folder is made last.
"""

from __future__ import annotations

import os
import platform
import socket
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import __version__, atomic, collector, control, events, machine, tokenizers
from engine.checkpoints import CheckpointInfo, check_belongs, check_name
from engine.config import Config, to_toml
from engine.corpora import find_corpus, get_tokenizer, prepare
from engine.corpora.digest import corpus_digest
from engine.corpora.preparation import prepared_digest
from engine.data import Windows, split
from engine.device import check_device_name
from engine.errors import EngineError, InputError, in_words
from engine.lab import Lab
from engine.planner import count_steps
from engine.resuming import Resumption, describe, open_resumption
from engine.runs import RunFolder, RunWriter, check_writable
from engine.spool import Spool
from engine.threads import measured_threads

if TYPE_CHECKING:
    from engine.tokenizers import Tokenizer


def check_request(lab: Lab, config: Config, name: str | None = None) -> None:
    """Refuse what can be seen at once, without torch and without reading the corpus."""
    if name is not None:
        check_name(name)
    find_corpus(lab, config.data.corpus)
    if config.data.tokenizer == "hf":
        raise InputError(
            "data.tokenizer = 'hf': it belongs to an imported model, and is not made for another",
            "train the imported run on: tui-lab train --resume RUN --corpus NAME",
        )
    check_device_name(config.train.device)
    check_writable(lab.checkpoints)


def run_training(
    lab: Lab,
    config: Config,
    *,
    emit: events.Emit,
    inbox: control.Inbox,
    name: str | None = None,
    preset: str = "",
    command_line: str = "",
) -> events.Finished:
    """Train a new run in the calling thread, from `config` to its end.

    Raises EngineError, after a `Failed` event has said the same.
    """
    with _telling(emit, inbox) as tell:
        check_request(lab, config, name)
        material = Material(lab, config, tell)
        tell(events.Preparing(what="loading torch"))
        machine = Machine(config)
        identity = {
            "preset": preset,
            "title": config.title,
            "command_line": command_line,
            "seed": config.train.seed,
            "corpus_digest": material.prepared.corpus_digest,
            "tokenizer_digest": material.tokenizer.digest,
            "host": socket.gethostname(),
            "device": machine.name,
            "versions": _versions(),
        }
        wanted = name or default_name(config, preset)
        folder = tell.stack.enter_context(RunFolder.create(lab, wanted, config, identity))
        material.tokenizer.save(folder.path / "tokenizer")
        return _train_in(folder, config, material, machine, tell, inbox, None)
    return tell.stopped_early()


def resume_training(
    lab: Lab,
    run: str | Resumption,
    *,
    overrides: Mapping[str, Any] | None = None,
    emit: events.Emit,
    inbox: control.Inbox,
) -> events.Finished:
    """Go on with a run, from its newest sound checkpoint (or the one that `run` names), with the
    same data order, schedule, moments and random state.

    `run` is a reference, or what `open_resumption` has taken already. Raises EngineError, after a
    `Failed` event has said the same.
    """
    with _telling(emit, inbox) as tell:
        taken = run if isinstance(run, Resumption) else open_resumption(lab, run, overrides)
        folder = tell.stack.enter_context(taken.folder)
        info, config = taken.info, taken.config
        tell.resumed_from = info
        tokenizer = tokenizers.load_of_run(folder.path)
        content = corpus_digest(lab, find_corpus(lab, config.data.corpus))
        check_belongs(info, tokenizer.digest, prepared_digest(tokenizer, content))
        material = Material(lab, config, tell, tokenizer)
        length = count_steps(config, len(material.train))
        if length is not None and info.step >= length:
            raise InputError(
                f"run '{folder.name}' has done all of its {length} steps",
                f"give it more: tui-lab train --resume {folder.name} --max-steps {2 * length}",
            )
        tell(events.Preparing(what="loading torch"))
        machine = Machine(config, taken.threads)
        if taken.differences:
            atomic.write_text(folder.path / "config.toml", to_toml(config))
        return _train_in(folder, config, material, machine, tell, inbox, taken)
    return tell.stopped_early()


def default_name(config: Config, preset: str) -> str:
    """A run's name when none is given: the preset's and the corpus's."""
    return f"{Path(preset).stem if preset else 'run'}-{config.data.corpus}"


class _StoppedEarly(Exception):
    """Somebody asked to stop before there was a loop that could."""


class _Listeners:
    """Everything a run says goes to all of them; what they hold open is closed at the end.

    One event at a time, from whichever thread, and nothing after the run's last word.
    """

    def __init__(self, emit: events.Emit, inbox: control.Inbox, stack: ExitStack) -> None:
        self.all = [emit]
        self.stack = stack
        self.run = ""
        self.step = 0
        self.over = False
        self.resumed_from: CheckpointInfo | None = None
        self._inbox = inbox
        self._failing: list[events.Emit] = []
        self._lock = threading.RLock()

    def __call__(self, event: events.Event) -> None:
        """Raises _StoppedEarly when the run only prepares and is asked to stop."""
        with self._lock:
            if self.over:
                return
            if isinstance(event, events.RunStarted):
                self.run = event.run
            if isinstance(event, events.RunStarted | events.StepDone):
                self.step = event.step
            self.over = isinstance(event, events.Finished | events.Failed)
            self._tell(event)
        if isinstance(event, events.Preparing):
            self.stop_early()

    def _tell(self, event: events.Event) -> None:
        """All of them hear it, whatever becomes of one; what is no Exception goes up afterwards."""
        raised: BaseException | None = None
        for listen in list(self.all):
            try:
                listen(event)
            except Exception as error:  # a listener's trouble is not the run's
                self._complain(listen, error)
            except BaseException as error:
                raised = error
        if raised is not None:
            raise raised

    def _complain(self, listen: events.Emit, error: Exception) -> None:
        if listen not in self._failing:
            self._failing.append(listen)
            title = f"what listens to the run has failed: {in_words(error)}"
            self._tell(events.Alert(level="error", title=title, hint="training goes on"))

    def stop_early(self) -> None:
        """Raise _StoppedEarly if somebody asks to stop."""
        if self._inbox.holds(control.Stop):
            raise _StoppedEarly

    def stopped_early(self) -> events.Finished:
        """The last word of a run that never began its loop; what was saved before stands."""
        stops = [command for command, _ in self._inbox.take() if isinstance(command, control.Stop)]
        info = self.resumed_from
        finished = events.Finished(
            run=self.run or (info.run if info else ""),
            step=info.step if info else 0,
            tokens=info.tokens if info else 0,
            reason=stops[0].reason if stops else "stopped",
            seconds=0.0,
            checkpoint=str(info.path) if info else "",
        )
        self(finished)
        return finished


@contextmanager
def _telling(emit: events.Emit, inbox: control.Inbox) -> Iterator[_Listeners]:
    """Listeners that are told of a failure, whatever it is, before it goes up. A stop during the
    preparation is none: the body ends there, and what follows the `with` has the last word."""
    with ExitStack() as stack:
        tell = _Listeners(emit, inbox, stack)
        try:
            yield tell
        except _StoppedEarly:
            pass
        except EngineError as error:
            tell(events.Failed(step=tell.step, title=error.title, hint=error.hint, run=tell.run))
            raise
        except BaseException as error:
            text = "".join(traceback.format_exception(error))
            title = in_words(error)
            tell(events.Failed(step=tell.step, title=title, traceback=text, run=tell.run))
            raise


class Material:
    """What a run learns from: tokenizer, prepared corpus, and its two splits."""

    def __init__(
        self, lab: Lab, config: Config, emit: events.Emit, tokenizer: Tokenizer | None = None
    ) -> None:
        def progress(what: str, done: int, total: int) -> None:
            emit(events.Preparing(what=what, done=done, total=total))

        data, context = config.data, config.model.context_length
        self.tokenizer = tokenizer or get_tokenizer(
            lab, data.corpus, data.tokenizer, data.vocab_size, progress
        )
        self.prepared = prepare(lab, data.corpus, self.tokenizer, progress=progress)
        n_tokens, starts = self.prepared.n_tokens, self.prepared.document_starts()
        boundary = split(n_tokens, data.val_fraction, context, starts)
        stream = self.prepared.tokens()
        self.train = Windows(stream, 0, boundary, context, data.stride)
        self.val = Windows(stream, boundary, n_tokens, context) if data.val_fraction else None
        self.train_tokens, self.val_tokens = boundary, n_tokens - boundary


class Machine:
    """Where the run computes: device, precision, threads, and what the device can do at most."""

    def __init__(self, config: Config, threads: int = 0) -> None:
        """`threads`: of the process that the run began in; 0 for a new run."""
        import torch

        from engine import device

        self.device = device.choose_device(config.train.device)
        self.precision = device.choose_precision(self.device, config.train.precision)
        self.threads = config.train.threads or min(threads, machine.cores())
        if not self.threads:
            self.threads = (
                measured_threads(str(self.precision))
                if self.device.type == "cpu"
                else machine.cores()
            )
        torch.set_num_threads(self.threads)
        if config.train.float8:
            device.check_float8(self.device, self.precision)
        self.name = device.device_name(self.device)
        self.peak_flops, self.peak_source = device.peak_flops(self.device, self.precision)

    def autocast(self) -> AbstractContextManager[Any]:
        from engine import device

        return device.autocast(self.device, self.precision)

    def as_current(self) -> AbstractContextManager[Any]:
        from engine import device

        return device.as_current(self.device)


def _versions() -> dict[str, str]:
    import numpy
    import torch

    return {
        "tui-lab": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def _train_in(
    folder: RunFolder,
    config: Config,
    material: Material,
    machine: Machine,
    tell: _Listeners,
    inbox: control.Inbox,
    resumed: Resumption | None,
) -> events.Finished:
    """Build the run's parts, put back what a checkpoint holds, and train inside `folder`."""
    from engine.assembly import assemble
    from engine.watchdog import Watchdog

    def on_trouble(title: str, hint: str) -> None:
        tell.all[0](events.Alert(level="error", title=title, hint=hint))

    def on_refused(title: str) -> None:
        tell(events.Alert(level="warning", title=title))

    spool = Spool(folder.path, inbox, on_refused)
    writer = RunWriter(folder, on_trouble=on_trouble)
    tell.stack.callback(writer.close)
    tell.stack.callback(spool.close)
    tell.all += [writer, spool]
    spool.start(writer.beat)
    info = resumed.info if resumed else None
    tell.stack.enter_context(collector.at_rest())
    tell.stack.enter_context(machine.as_current())
    trainer = assemble(folder, config, material, machine, tell, inbox, info)
    tell(_started(folder, config, material, machine, trainer, resumed is not None))
    if resumed:
        _tell_what_is_different(resumed, tell)
    with Watchdog(trainer):
        return trainer.train()


def _tell_what_is_different(resumed: Resumption, tell: events.Emit) -> None:
    step = resumed.info.step
    for problem in resumed.skipped:
        title = f"skipped a broken checkpoint: {problem}"
        tell(events.Alert(level="warning", title=title, step=step))
    for line in describe(resumed.differences):
        tell(events.Alert(level="info", title=f"resumed with {line}", step=step))


def _started(
    folder: RunFolder,
    config: Config,
    material: Material,
    machine: Machine,
    trainer: Any,
    resumed: bool,
) -> events.RunStarted:
    from engine.arithmetic import count_parameters, flops_per_token

    vocab_size = material.tokenizer.vocab_size
    per_step = config.train.batch_size * config.train.accumulate
    return events.RunStarted(
        run=folder.name,
        path=str(folder.path),
        config=to_toml(config),
        step=trainer.progress.step,
        tokens=trainer.progress.tokens,
        max_steps=trainer.parts.total_steps,
        steps_per_epoch=len(material.train) / per_step,
        tokens_per_step=per_step * config.model.context_length,
        n_parameters=count_parameters(config.model, vocab_size),
        flops_per_token=flops_per_token(config.model, vocab_size),
        context_length=config.model.context_length,
        vocab_size=vocab_size,
        train_tokens=material.train_tokens,
        val_tokens=material.val_tokens,
        bytes_per_token=material.prepared.n_bytes / max(1, material.prepared.n_tokens),
        device=machine.device.type,
        device_name=machine.name,
        precision=str(machine.precision),
        threads=machine.threads,
        peak_flops=machine.peak_flops,
        peak_source=machine.peak_source,
        pid=os.getpid(),
        host=socket.gethostname(),
        resumed=resumed,
    )
