"""How fast the run goes: training time alone, and logged numbers brought over without waiting.

Knows the device and the clock; knows nothing of files or screens. Evaluation, samples, saves and
pauses are not training time: `start` and `stop` bracket the steps only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.device import memory
from engine.events import DeviceStats, StepDone
from engine.guard import Verdicts
from engine.objectives import Reported

STATS_SECONDS = 1.0


@dataclass
class Logged:
    """A logged step on its way from the device to the listeners."""

    step: int
    tokens: int
    lr: float
    epoch: float
    tokens_per_second: float
    # On the host: loss, gradient norm, the guard's three counts, and four numbers of the routers
    # where there are experts.
    numbers: Tensor
    ready: torch.cuda.Event | None

    @property
    def loss(self) -> float:
        return float(self.numbers[0])

    @property
    def grad_norm(self) -> float:
        return float(self.numbers[1])

    @property
    def verdicts(self) -> Verdicts:
        return Verdicts(*(int(count) for count in self.numbers[2:5].tolist()))

    @property
    def router(self) -> list[float]:
        """What `Routing.statistics` gave; empty without experts."""
        return [float(number) for number in self.numbers[5:].tolist()]


class Meter:
    """Times steps, and holds logged ones until their numbers have arrived."""

    def __init__(self, device: torch.device, flops_per_token: float, peak_flops: float) -> None:
        self.device = device
        self.flops_per_token = flops_per_token
        self.peak_flops = peak_flops
        self.last_loss: float | None = None
        self.step_seconds = 0.0  # what the newest step took
        self._seconds = 0.0  # spent in steps, not yet taken
        self._started = 0.0
        self._window_seconds = 0.0
        self._window_tokens = 0
        self._waiting: deque[Logged] = deque()
        self._stats = memory(device)
        self._stats_time = -STATS_SECONDS

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self, tokens: int) -> None:
        spent = time.perf_counter() - self._started
        self.step_seconds = spent
        self._seconds += spent
        self._window_seconds += spent
        self._window_tokens += tokens

    def take_seconds(self) -> float:
        """Seconds spent in steps since this was last asked."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def log(
        self,
        step: int,
        tokens: int,
        lr: float,
        epoch: float,
        loss: Reported,
        grad_norm: Tensor,
        counts: Tensor,
    ) -> None:
        """Start bringing loss, gradient norm, the guard's counts and the routers' numbers over."""
        parts = [torch.stack((loss.nats.float(), grad_norm.float())), counts]
        if loss.statistics is not None:
            parts.append(loss.statistics.float())
        numbers, ready = torch.cat(parts), None
        if self.device.type == "cuda":
            host = torch.empty(len(numbers), pin_memory=True)
            host.copy_(numbers, non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
            numbers = host
        else:
            numbers = numbers.cpu()
        rate = self._window_tokens / self._window_seconds if self._window_seconds > 0 else 0.0
        self._window_seconds, self._window_tokens = 0.0, 0
        self._waiting.append(Logged(step, tokens, lr, epoch, rate, numbers, ready))

    def arrived(self, *, wait: bool) -> Iterator[Logged]:
        """Logged steps whose numbers are here, oldest first; all of them when `wait`."""
        while self._waiting:
            ready = self._waiting[0].ready
            if ready is not None and not ready.query():
                if not wait:
                    return
                ready.synchronize()
            logged = self._waiting.popleft()
            self.last_loss = logged.loss
            yield logged

    def forget(self) -> None:
        """Drop logged steps that have not arrived: the run was rolled back behind them."""
        self._waiting.clear()

    def event(self, logged: Logged, val_loss: float | None) -> StepDone:
        rate = logged.tokens_per_second
        balance, busiest, idlest, entropy = logged.router or (None,) * 4
        return StepDone(
            step=logged.step,
            tokens=logged.tokens,
            loss=logged.loss,
            lr=logged.lr,
            grad_norm=logged.grad_norm,
            tokens_per_second=rate,
            mfu=self.flops_per_token * rate / self.peak_flops if self.peak_flops else None,
            memory_bytes=self._stats.used,
            epoch=logged.epoch,
            val_loss=val_loss,
            router_balance=balance,
            expert_busiest=busiest,
            expert_idlest=idlest,
            router_entropy=entropy,
        )

    def device_stats(self) -> DeviceStats | None:
        """Memory and load, when the last reading is more than a second old."""
        now = time.monotonic()
        if now - self._stats_time < STATS_SECONDS:
            return None
        self._stats_time = now
        self._stats = memory(self.device)
        return self._stats
