"""Pressroom, started as an operator would, with the same WordPress data as the peers.

Two things differ from a fresh `up`: plain HTTP is not redirected (the peers speak plain HTTP), and a cookie of the bench
bypasses the page cache, which makes the row of uncached pages.
"""

import json
import os
import re
import subprocess

from ground import PHP, Ground, answer, free_port, wait_until
from peers import BENCH, STYLESHEET, Target

BINARY = BENCH.parent / "target/release/pressroom"
CONFIG = """[edge]
http = ["127.0.0.1:{http}"]
https = ["127.0.0.1:{https}"]
redirect_to_https = false
access_log = "{log}"

[console]
listen = "127.0.0.1:{console}"

[[site]]
name = "bench"
title = "Bench"

[site.page_cache]
bypass_cookies = ["bench_bypass"]
"""


class Pressroom:
    """A running Pressroom with one seeded site."""

    def __init__(self, ground: Ground):
        self.data = ground.folder / "pressroom"
        self.data.mkdir()
        self.data.chmod(0o755)
        self.ports = {name: free_port() for name in ("http", "https", "console")}
        self.password = ground.write("password", os.urandom(12).hex())
        self.password.chmod(0o600)

    def start(self) -> None:
        """Starts and fills it."""
        self._configure("off")
        self._call("up", "--yes", "--detach", "--site", "bench", "--admin-password-file", str(self.password))
        self._seed()
        self._warm()

    def _call(self, *arguments: str) -> str:
        done = subprocess.run([BINARY, "--data", self.data, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"error: pressroom {arguments[0]} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _status(self) -> dict:
        return json.loads(self._call("status", "--json"))

    def _configure(self, log: str) -> None:
        (self.data / "pressroom.toml").write_text(CONFIG.format(log=log, **self.ports))

    def set_logs(self, logs: str) -> None:
        """Turns the access log on (combined, as the peers') or off, and waits until it is so."""
        self._configure("off" if logs == "off" else "combined")
        self._call("apply")
        self._warm()

    def _seed(self) -> None:
        """Fills the site by its own PHP: its user, its configuration, its tree."""
        site = self.data / "sites/bench"
        tree = site / "releases" / self._status()["sites"][0]["release"]
        owner = os.stat(site / "uploads")
        environment = {
            "PATH": os.environ["PATH"],
            "PRESSROOM_SITE": "bench",
            "PRESSROOM_CONFIG": str(site / "config/site.php"),
            "PRESSROOM_AFFIRM": str(self.data / "run/affirm/bench/edge.sock"),
        }
        subprocess.run(
            [f"php{PHP}", BENCH / "seed.php", tree, self._host()],
            check=True,
            env=environment,
            user=owner.st_uid,
            group=owner.st_gid,
            extra_groups=[],
            cwd="/",
        )

    def _host(self) -> str:
        """The host of the home URL: WordPress redirects every other one."""
        return re.sub(r"^https?://|/$", "", self._status()["sites"][0]["url"])

    def _warm(self) -> None:
        given = {"Host": self._host(), "Accept-Encoding": "gzip"}

        def is_stored() -> bool:
            status, headers, _ = answer(self.ports["http"], "/", given)
            return status == 200 and headers.get("x-cache") == "hit" and headers.get("content-encoding") == "gzip"

        wait_until("a compressed hit of Pressroom", is_stored)

    def target(self, row: str) -> Target:
        """Our address for a row."""
        path = STYLESHEET if row == "static file" else "/"
        cookie = "bench_bypass=1" if row == "uncached page" else ""
        roots = [self._status()["keeper"]["pid"]]
        return Target("Pressroom", self.ports["http"], path, roots, self._host(), cookie)

    def close(self) -> None:
        """Stops everything that `up` started."""
        subprocess.run([BINARY, "--data", self.data, "down"], capture_output=True)
