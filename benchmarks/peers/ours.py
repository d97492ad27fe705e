"""Our side: a run through `engine.session.run_training`, as `tui-lab train` makes it.

    python -m benchmarks.peers.ours --shape 384 [--device cpu] [--set train.precision=float32]
    python -m benchmarks.peers.ours --preset medium

What a user gets: default settings, every step logged and written to the run's files. The text is
random, of the shape's vocabulary or as large a one as the preset's.
"""

from __future__ import annotations

import argparse
import os
import traceback

import torch

from benchmarks.gate import Gate
from benchmarks.program import ROOT
from engine import control, events
from engine.bench.shapes import SHAPES, open_lab, timed
from engine.config import load_preset
from engine.config.load import parse_assignments
from engine.config.schema import find_field
from engine.lab import Lab
from engine.session import run_training
from engine.survey import survey_corpus


class Gated:
    """A listener that lets the run on when its gate does, and ends it when that is closed."""

    def __init__(self) -> None:
        self.inbox = control.Inbox()
        self._gate: Gate | None = None
        self._compiling = False

    def __call__(self, event: events.Event) -> None:
        try:
            self._hear(event)
        except Exception:  # a run goes on without a listener that fails: this one is its purpose
            traceback.print_exc()
            os._exit(1)

    def _hear(self, event: events.Event) -> None:
        if isinstance(event, events.RunStarted):
            self._gate = Gate(
                torch.device(event.device),
                event.tokens_per_step,
                event.precision,
                parameters=event.n_parameters,
                flops_per_token=event.flops_per_token,
                threads=event.threads,
                device_name=event.device_name,
            )
        elif isinstance(event, events.Phase):
            self._compiling = event.phase == "compiling"
        elif isinstance(event, events.StepDone) and not self._compiling:
            assert self._gate is not None
            if not self._gate.passed(event.step):
                self.inbox.put(control.Stop(save=False), "benchmark")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--shape", choices=SHAPES)
    what.add_argument("--preset")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], help="a field, as in tui-lab train")
    options = parser.parse_args()
    if options.shape:
        shape = SHAPES[options.shape]
        config, vocab_size = shape.config(), shape.vocab_size
    else:
        lab = Lab(ROOT)
        config = load_preset(lab, options.preset)
        vocab_size = survey_corpus(lab, config).vocab_size
    given = parse_assignments([f"train.device={options.device}", *options.set])
    settings = {key: find_field(key).parse(value) for key, value in given.items()}
    listener = Gated()
    with open_lab(vocab_size, config.model.context_length) as lab:
        run = timed(config, settings)
        run_training(lab, run, emit=listener, inbox=listener.inbox, name="benchmark")


if __name__ == "__main__":
    main()
