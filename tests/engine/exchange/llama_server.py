"""llama.cpp in a process of its own, as a program: `python -m tests.engine.exchange.llama_server`.

Reads jobs as JSON from standard input and prints one line of answers a job. Its own process, since
a file that llama.cpp does not like can abort it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

SECONDS = 100


def ask(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What llama.cpp answers to each job: `path` of a file, `texts` to tokenize, and `prompts` to
    continue greedily by `count` tokens. The answer has `ids` and `tokens`, in the same order."""
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=Path(__file__).parents[3],
    )
    answers = [line[7:] for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert len(answers) == len(jobs), (
        f"{done.returncode}\n{done.stdout[-500:]}{done.stderr[-3000:]}"
    )
    return [json.loads(answer) for answer in answers]


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = job["path"]
    params.n_ctx, params.n_parallel = job.get("context", 256), 1
    params.warmup = params.fit_params = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    # Keys and values as exact as ours; by default they are kept in float16.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)

    def post(route: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            server.listening_address + route,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    return {
        "ids": [
            post("/tokenize", {"content": text, "parse_special": False})["tokens"]
            for text in job["texts"]
        ],
        "tokens": [
            post(
                "/completion",
                {
                    "prompt": prompt,
                    "n_predict": job["count"],
                    "samplers": ["top_k"],
                    "top_k": 1,
                    "repeat_penalty": 1,
                    "ignore_eos": True,
                    "return_tokens": True,
                    "cache_prompt": False,
                },
            )["tokens"]
            for prompt in job["prompts"]
        ],
    }


if __name__ == "__main__":
    for job in json.load(sys.stdin):
        sys.stdout.write(f"ANSWER {json.dumps(_answer(job))}\n")
        sys.stdout.flush()
    os._exit(0)  # not through the destructors of several servers
