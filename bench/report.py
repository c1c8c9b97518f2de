"""Turns bursts into a table: medians, the ratio to Pressroom, and the noise.

A ratio is taken within a round, where all peers had the same machine, and the median of the rounds is shown. Noise is half the
distance between the rounds' extremes, as a part of the median.
"""

import json
import os
import pathlib
import platform
import statistics
import time

OURS = "Pressroom"
OUT = pathlib.Path(__file__).parent / "out"


def _noise(values: list[float]) -> float:
    return (max(values) - min(values)) / 2 / statistics.median(values) * 100


def table(results: list[dict]) -> str:
    """The Markdown table."""
    lines = [
        "| row | access log | server | requests/s | p50 ms | p99 ms | CPU µs/request | noise | CPU, Pressroom ÷ this | errors |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    groups: dict[tuple, list[dict]] = {}
    for result in results:
        groups.setdefault((result["row"], result["logs"], result["peer"]), []).append(result)
    for (row, logs, peer), bursts in groups.items():
        ours = {burst["round"]: burst["cpu_us"] for burst in groups.get((row, logs, OURS), [])}
        ratios = [ours[burst["round"]] / burst["cpu_us"] for burst in bursts if burst["round"] in ours]
        ratio = f"{statistics.median(ratios):.2f}" if ratios else ""

        def middle(field: str) -> float:
            return statistics.median(burst[field] for burst in bursts)

        cpu = middle("cpu_us")
        lines.append(
            f"| {row} | {logs} | {peer} | {middle('rps'):,.0f} | {middle('p50_ms'):.2f} | {middle('p99_ms'):.2f} "
            f"| {cpu:,.1f} | ±{_noise([burst['cpu_us'] for burst in bursts]):.0f} % | {ratio} "
            f"| {sum(burst['errors'] for burst in bursts)} |"
        )
    return "\n".join(lines)


def save(results: list[dict]) -> pathlib.Path:
    """Writes every burst, with what the machine was."""
    OUT.mkdir(exist_ok=True)
    path = OUT / time.strftime("%Y%m%d-%H%M%S.json")
    facts = {"kernel": platform.release(), "cores": len(os.sched_getaffinity(0)), "bursts": results}
    path.write_text(json.dumps(facts, indent=1))
    return path
