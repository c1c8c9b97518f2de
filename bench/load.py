"""Applies load and reads what it cost.

A *burst* is one run of wrk against one address: one thread, kept-alive HTTP/1.1 connections. What the servers spent is
the user and system time of the peer's process trees, reaped children included, read from /proc before and after; it is
divided by the number of answers. wrk's own time is in no figure, but it takes a core from every peer alike.
"""

import json
import os
import pathlib
import subprocess
import tempfile
from dataclasses import dataclass

TICK = os.sysconf("SC_CLK_TCK")

REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"micros":%d,"p50":%d,"p99":%d,"bytes":%d,"errors":%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass
class Burst:
    """What one burst measured."""

    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    errors: int
    requests: int


def cpu_seconds(roots: list[int]) -> float:
    """User and system time of these processes and everything below them, with the children they have reaped."""
    times: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = pathlib.Path(f"/proc/{entry.name}/stat").read_text()
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        pid = int(entry.name)
        times[pid] = sum(map(int, fields[11:15])) / TICK
        children.setdefault(int(fields[1]), []).append(pid)
    total, todo = 0.0, list(roots)
    while todo:
        pid = todo.pop()
        total += times.get(pid, 0.0)
        todo += children.get(pid, [])
    return total


def wrk(url: str, headers: dict[str, str], connections: int, seconds: int, roots: list[int]) -> Burst:
    """Runs one burst."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(REPORT)
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script.name]
        for name, value in headers.items():
            command += ["-H", f"{name}: {value}"]
        before = cpu_seconds(roots)
        output = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
        spent = cpu_seconds(roots) - before
    result = json.loads(next(line for line in output.splitlines() if line.startswith("RESULT "))[7:])
    requests = max(result["requests"], 1)
    return Burst(
        rps=requests / (result["micros"] / 1e6),
        p50_ms=result["p50"] / 1e3,
        p99_ms=result["p99"] / 1e3,
        cpu_us=spent / requests * 1e6,
        errors=result["errors"],
        requests=result["requests"],
    )
