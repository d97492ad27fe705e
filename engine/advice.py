"""What of a plan a person should know before the run: it would fail, disappoint, or surprise.

Pure functions of a plan and its configuration. Knows nothing of how the figures came about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.config import Config
from engine.fitting import Needs, largest_batch, remedies

if TYPE_CHECKING:
    from engine.planner import CorpusFacts, Plan

ROOM = 0.9
"""Share of a device's memory that a plan may take before it warns: an estimate is no promise."""
MANY_EPOCHS = 40


@dataclass(frozen=True)
class Message:
    """`level`: error (the run would fail), warning (it would disappoint), info. A hint may have
    several lines, each a way out of its own."""

    level: str
    title: str
    hint: str = ""


def messages(
    config: Config, drawn: Plan, corpus: CorpusFacts, needs: Needs, disk_free: int | None
) -> tuple[Message, ...]:
    """All there is to say, the errors first. `needs`: bytes of training a configuration there."""
    said = [
        *_about_memory(config, drawn, needs),
        *_about_disk(config, drawn, disk_free),
        *_about_data(config, corpus),
        *_about_length(config, drawn),
        *_about_experts(config),
        *_about_gpus(config, drawn),
    ]
    order = ("error", "warning", "info")
    return tuple(sorted(said, key=lambda message: order.index(message.level)))


def _about_memory(config: Config, drawn: Plan, needs: Needs) -> list[Message]:
    device, needed = drawn.device, drawn.memory.total
    room = ROOM * device.memory_total
    if not device.memory_total or needed <= room:
        return []
    found = remedies(config, needs, room, has_bfloat16=device.has_bfloat16)
    lines = [f"{one.words}: {one.flags} ({_gigabytes(one.bytes)})" for one in found]
    if not largest_batch(config, needs, room):
        lines.insert(0, "not even one window fits as it is")
    if not found:
        lines.append("a smaller model, or a device with more memory")
    sizes = f"{_gigabytes(needed)} of the {_gigabytes(device.memory_total)} there are"
    title = f"training needs about {sizes}"
    if needed > device.memory_total:
        return [Message("error", f"does not fit: {title}", "\n".join(lines))]
    return [Message("warning", f"hardly fits: {title}", "\n".join(lines))]


def _about_disk(config: Config, drawn: Plan, free: int | None) -> list[Message]:
    if free is None or not drawn.disk_bytes or drawn.disk_bytes <= free:
        return []
    need = f"checkpoints take up to {_gigabytes(drawn.disk_bytes)}, {_gigabytes(free)} are free"
    if config.save.policy == "all":
        hint = "keep the newest alone (save.policy = rolling), or save less often (save.every)"
    else:
        hint = "make room, or train without checkpoints (--no-save)"
    return [Message("error" if drawn.checkpoint_bytes > free else "warning", need, hint)]


def _about_data(config: Config, corpus: CorpusFacts) -> list[Message]:
    context, data = config.model.context_length, config.data
    if not corpus.available:
        fetch = f"tui-lab corpus fetch {data.corpus}"
        return [Message("error", f"corpus '{data.corpus}' is not here yet", f"get it: {fetch}")]
    if corpus.train_tokens is None or corpus.val_tokens is None:
        return []
    about = "" if corpus.exact else "about "
    parts = [("training", corpus.train_tokens)]
    if data.val_fraction:
        parts.append(("validation", corpus.val_tokens))
    name, shortest = min(parts, key=lambda part: part[1])
    if shortest <= context:
        title = f"the {name} part has {about}{shortest} tokens: no window of context {context} fits"
        hint = f"model.context_length at most {shortest - 1}" if shortest > 1 else "a larger corpus"
        return [Message("error", title, hint)]
    messages = []
    batch_tokens = config.train.batch_size * context
    if data.val_fraction and corpus.val_tokens < batch_tokens:
        title = (
            f"the validation part has {about}{corpus.val_tokens} tokens, less than one batch of "
            f"{batch_tokens}: its loss will be noisy"
        )
        messages.append(Message("warning", title, "a larger corpus, or a larger data.val_fraction"))
    if data.stride > context:
        skipped = 1 - context / data.stride
        title = f"data.stride = {data.stride} skips {skipped:.0%} of the text in every epoch"
        messages.append(Message("warning", title, f"at most the context length, {context}"))
    return messages


def _about_length(config: Config, drawn: Plan) -> list[Message]:
    schedule, lr, steps = config.schedule, config.optimizer.lr, drawn.steps
    messages = []
    if schedule.min_lr > lr:
        title = f"schedule.min_lr = {schedule.min_lr:g} is above optimizer.lr = {lr:g}"
        messages.append(Message("warning", f"{title}: the rate never falls", "lower min_lr"))
    if steps is None:
        return messages
    if schedule.warmup_steps >= steps:
        reached = lr * steps / (schedule.warmup_steps + 1)
        title = (
            f"the warm-up of {schedule.warmup_steps} steps is not over when the run ends after "
            f"{steps}: the rate gets to {reached:.2g} of {lr:.2g}"
        )
        hint = f"schedule.warmup_steps = {max(1, steps // 10)}, or a longer run"
        messages.append(Message("warning", title, hint))
    if config.save.policy == "all" and config.save.every > steps:
        title = f"save.every = {config.save.every}: the run ends before its first checkpoint is due"
        messages.append(Message("info", title, "the last step is saved in any case"))
    if drawn.epochs and drawn.epochs > MANY_EPOCHS:
        title = f"the training part is seen {drawn.epochs:.0f} times: expect overfitting"
        messages.append(Message("info", title, "watch the validation loss, or use a larger corpus"))
    return messages


def _about_experts(config: Config) -> list[Message]:
    model, messages = config.model, []
    if not model.n_expert:
        return []
    if model.n_expert_active == 1 and model.renormalise:
        title = "one active expert whose weight is renormalised: always 1, whatever the router says"
        hint = "the router learns nothing of the loss: model.renormalise = false"
        messages.append(Message("warning", title, hint))
    if not model.balance_loss:
        title = "model.balance_loss = 0: a few experts may come to get every token"
        messages.append(Message("info", title, "0.01 is usual"))
    return messages


def _about_gpus(config: Config, drawn: Plan) -> list[Message]:
    parallel, train = drawn.parallel, config.train
    if parallel is None:
        return []
    title = (
        f"this program trains on one device: the figures of {parallel.gpus} GPUs are of data "
        "parallelism, as other programs have it"
    )
    said = [Message("info", title, "export the run, or its configuration, to one of them")]
    windows = train.batch_size * train.accumulate
    if parallel.gpus > 1:
        title = (
            f"a step is {parallel.gpus} times as large, {windows * parallel.gpus} windows: every "
            "GPU has its own"
        )
        hint = "the learning rate and the number of steps are for that step"
        if train.accumulate > 1:
            same = max(1, round(train.accumulate / parallel.gpus))
            hint += f"; train.accumulate = {same} is nearer to the step of one GPU"
        said.append(Message("info", title, hint))
    return said


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
