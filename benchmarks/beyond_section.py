"""The part of docs/experiments.md that tells of reading on beyond the context, with its charts."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks import beyond_the_context
from benchmarks.charts import Series, line_chart
from benchmarks.page import newest, shape, table, where

TITLES = {
    "backcopy": "Beyond the context: the Bigram-Backcopy task",
    "wikitext-2": "Beyond the context: WikiText-2, characters",
}
ABOUT = {
    "backcopy": "The Bigram-Backcopy task (Guo et al. 2024): each letter is drawn by the one "
    "before it, as often as they follow each other in tiny Shakespeare; but after a trigger (t, e "
    "or the space) comes once more the letter that stood before it. So attention is needed at "
    "triggers alone. **rule** is the perplexity of one who knows the rule. The MLP of **ordinary** "
    "is 8 wide; **wide-mlp** has the usual width, with which a network can leave out, after "
    "attention, what it brought to no purpose. Shape and rate were chosen among eight tried on one "
    "seed: a sink formed in five of them, and the window collapsed in two, of which this is the "
    "milder. The other seeds below had no part in the choice.",
    "wikitext-2": "A natural text, whose every letter has something to look back to.",
}
DASHES = {"window": "9 6", "within": "2 5", "rule": "1 3"}
SINK = 0.2
"""Share of a head's attention from which the first position is called a sink."""

INTRO = """## Beyond the trained context, with and without sinks

RoPE, RMSNorm, SwiGLU. Every training sequence begins with a mark, as those of Llama and its kin do.
**ordinary** is the network as it is, **learned-sinks** the same with a learned sink in every head
(GPT-OSS).

Ways to read, token by token: **sinks**, a rolling cache of the context's size that keeps the first
4 positions; **window**, the same cache with the newest positions alone; **plain**, a cache that
keeps everything, at positions never trained. **within** is the control: the same tokens read within
the trained context, each after at least half a context (and the mark).
"""


def beyond_section(results: Path, charts: dict[str, str]) -> str:
    """All texts; their charts are added to `charts` by file name."""
    parts = [INTRO]
    for text, title in TITLES.items():
        result = newest(f"beyond-the-context-{text}", results)
        command = f"python -m benchmarks.beyond_the_context --data DIR --text {text}"
        if result is None:
            parts.append(f"### {title}\n\nNot measured yet: `{command}`\n")
            continue
        told = [f"### {title}", f"`{command}`", f"{shape(result)} {ABOUT[text]}"]
        for name, model in result["models"].items():
            told += _network(text, name, model, result, charts)
        if result.get("seeds"):
            told += _seeds(result)
        parts.append("\n\n".join([*told, where(result)]) + "\n")
    return "\n".join(parts)


def _network(
    text: str, name: str, model: dict[str, Any], result: dict[str, Any], charts: dict[str, str]
) -> list[str]:
    """One network's tables and charts."""
    ways = list(model["last_quarter"])
    context, times = result["settings"]["model.context_length"], result["stream"]
    stem = f"beyond-{text}-{name}"
    for kind, rows in (("position", model["by_position"]), ("context", model["by_context"])):
        charts[f"{stem}-by-{kind}.svg"] = line_chart(
            f"Perplexity by position, network: {name}, {model['rows']} stretches of text",
            "position",
            "perplexity",
            [
                Series(
                    way,
                    [(row["from"] + row["to"]) / 2 for row in rows],
                    [row[way] for row in rows],
                    dash=DASHES.get(way, "none"),
                )
                for way in ways
            ],
            logarithmic=True,
            mark=(context, "trained context"),
        )
    position_rows = [
        [f"{row['from']:.0f}–{row['to']:.0f}", *(f"{row[way]:.2f}" for way in ways)]
        for row in model["by_position"]
    ]
    memory = [
        [
            f"{way}, cache / process",
            *(
                f"{at['cache_bytes'] / 1e6:.1f} / {at['process_bytes'] / 1e6:.0f} MB"
                for at in marks
            ),
        ]
        for way, marks in model["memory"].items()
    ]
    heads = [f"{at['contexts']}×" for at in next(iter(model["memory"].values()))]
    return [
        f"#### Network: {name}",
        _looks(model),
        f"Perplexity by position, over {model['rows']} stretches of text that was not trained on:",
        table(["positions", *ways], position_rows),
        f"![by position](experiments/{stem}-by-position.svg)",
        f"A stream of {times}× the context ({times * context:,} tokens): perplexity over its last "
        "quarter, and what it is of that of the same tokens within the context (± the standard "
        "error over the stretches):",
        _tail(model),
        f"**{beyond_the_context.verdict(model)}**",
        f"![by context](experiments/{stem}-by-context.svg)",
        f"Memory after so many contexts, for {model['rows']} stretches at once (the process holds "
        "the network, the text and what was measured before as well):",
        table(["way", *heads], memory),
    ]


def _seeds(result: dict[str, Any]) -> list[str]:
    """The last quarter again, by seed."""
    seeds = {"the one above": result["models"]["ordinary"]} | result["seeds"]
    rows = [
        [
            name,
            f"{max(_flat(model['attention']['first'])):.1%}",
            *(f"{model['last_quarter'][way]['ratio']:.3f}" for way in beyond_the_context.WAYS),
        ]
        for name, model in seeds.items()
    ]
    ratios = [model["last_quarter"]["window"]["ratio"] for model in seeds.values()]
    fell = sum(ratio - 1 > beyond_the_context.COLLAPSE for ratio in ratios)
    return [
        "#### Other seeds",
        "The ordinary network trained from other seeds: most of a head's attention that the first "
        "position gets, and perplexity over the last quarter against **within**:",
        table(["seed", "attention", *beyond_the_context.WAYS], rows),
        f"**Without sinks the window collapses (loses more than {beyond_the_context.COLLAPSE:.0%}) "
        f"in {fell} of {len(ratios)} seeds; it loses {min(ratios) - 1:.0%} to "
        f"{max(ratios) - 1:.0%}.**",
    ]


def _tail(model: dict[str, Any]) -> str:
    """The table of the last quarter; by kind of letter where there are kinds."""
    head, kinds = ["way", "perplexity", "against within"], model.get("by_kind")
    rows = [
        [way, f"{about['perplexity']:.2f}", f"{about['ratio']:.3f} ± {about['error']:.3f}"]
        for way, about in model["last_quarter"].items()
    ]
    if kinds:
        head += ["of copies", "of other letters"]
        for row in rows:
            row += [f"{kinds[row[0]][kind]:.2f}" for kind in ("copies", "others")]
    return table(head, rows)


def _looks(model: dict[str, Any]) -> str:
    """Where attention goes, and whether that is a sink."""
    attention = model["attention"]
    first = _flat(attention["first"])
    most = max(range(len(first)), key=first.__getitem__)
    heads = len(attention["first"][0])
    said = (
        "In the second half of a context the first position gets "
        f"{statistics.mean(first):.1%} of the attention (mean of heads; evenly spread it would be "
        f"{attention['even']:.1%}), in the head where it is most, head {most % heads + 1} of layer "
        f"{most // heads + 1}, {first[most]:.1%}."
    )
    if first[most] < SINK:
        said += f" So no head has made a sink of it, if a sink is what gets {SINK:.0%} or more."
    else:
        length = _flat(attention["values"])[most]
        sinks = sum(mass >= SINK for mass in first)
        said += (
            f" So it is a sink, in {sinks} of {len(first)} heads; what that head takes from it is "
            f"{length:.2f} times as long as other positions' values."
        )
    if kinds := model.get("attention_of"):
        triggers, others = (_flat(kinds[kind]["first"])[most] for kind in ("triggers", "others"))
        said += (
            f" At triggers that head gives the first position {triggers:.1%}, elsewhere "
            f"{others:.1%}."
        )
    if attention["learned"]:
        learned = _flat(attention["learned"])
        said += (
            f" The learned sinks get {statistics.mean(learned):.1%}, at most {max(learned):.1%}."
        )
    return said


def _flat(by_layer: list[list[float]]) -> list[float]:
    return [share for layer in by_layer for share in layer]
