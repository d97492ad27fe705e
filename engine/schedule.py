"""The learning rate as a pure function of the step, and its curve for a screen. No torch."""

from __future__ import annotations

import math

from engine.config.sections import ScheduleConfig


def learning_rate(step: int, schedule: ScheduleConfig, lr: float, total_steps: int) -> float:
    """The rate of step `step` (from 0) in a run of `total_steps`; `lr` is the peak.

    A linear rise over `warmup_steps` (the first step already moves: its rate is not 0), then by
    `kind`: cosine (Loshchilov & Hutter 2017), linear, constant, or wsd: hold, then fall over the
    last `decay_fraction` of the run by 1 − √ (Hägele et al. 2024). The last step has `min_lr`, or
    `lr` where that is lower. A warm-up longer than the run is simply cut off by its end.
    """
    floor = min(schedule.min_lr, lr)
    if step < schedule.warmup_steps:
        return lr * (step + 1) / (schedule.warmup_steps + 1)
    if schedule.kind == "constant":
        return lr
    start = fall_start(schedule, total_steps)
    if step < start:
        return lr
    # 0 at the first step of the fall, 1 at the last step of the run.
    share = min(1.0, (step - start) / max(1, total_steps - 1 - start))
    if schedule.kind == "cosine":
        height = 0.5 * (1.0 + math.cos(math.pi * share))
    elif schedule.kind == "linear":
        height = 1.0 - share
    else:
        height = 1.0 - math.sqrt(share)
    return floor + (lr - floor) * height


def fall_start(schedule: ScheduleConfig, total_steps: int) -> int:
    """The step from which the rate begins to fall (the end of the run when it never does)."""
    if schedule.kind == "constant":
        return total_steps
    if schedule.kind == "wsd":
        held_until = total_steps - round(schedule.decay_fraction * total_steps)
        return max(schedule.warmup_steps, held_until)
    return schedule.warmup_steps


def curve(
    schedule: ScheduleConfig, lr: float, total_steps: int, points: int = 200
) -> tuple[list[int], list[float]]:
    """The whole plan as (steps, rates), about `points` of them: evenly spaced, and the corners.

    The corners (end of warm-up, start of the fall, last step) are always among them, so that a
    coarse drawing does not cut off the peak.
    """
    if total_steps <= 0:
        return [], []
    last = total_steps - 1
    even = {round(last * index / max(1, points - 1)) for index in range(max(2, points))}
    corners = {0, schedule.warmup_steps, fall_start(schedule, total_steps), last}
    steps = sorted(even | {step for step in corners if step <= last})
    return steps, [learning_rate(step, schedule, lr, total_steps) for step in steps]
