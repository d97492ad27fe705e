"""`python -m benchmarks`: what needs no data beyond the repository, one after another."""

from __future__ import annotations

from benchmarks import first_paint, key_latency, ui_cost


def main() -> None:
    for benchmark in (first_paint, key_latency, ui_cost):
        benchmark.main()


if __name__ == "__main__":
    main()
