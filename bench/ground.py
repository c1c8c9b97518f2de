"""The ground that all peers stand on: packages, one temporary folder, ports, processes, and one WordPress tree.

Everything that is started is remembered by its process and stopped at the end, in reverse order; packages' own services
are not used. Ports are asked from the system.
"""

import http.client
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PHP = "8.2"
HOST = "blog.test"
WORDPRESS = pathlib.Path("/usr/share/wordpress")
PACKAGES = {
    "nginx": "/usr/sbin/nginx",
    "haproxy": "/usr/sbin/haproxy",
    "wrk": "/usr/bin/wrk",
    "nghttp2-client": "/usr/bin/h2load",
    f"php{PHP}-fpm": f"/usr/sbin/php-fpm{PHP}",
    f"php{PHP}-cli": f"/usr/bin/php{PHP}",
    f"php{PHP}-mysql": f"/usr/share/php{PHP}-mysql",
    f"php{PHP}-gd": f"/usr/share/php{PHP}-gd",
    f"php{PHP}-xml": f"/usr/share/php{PHP}-xml",
    f"php{PHP}-mbstring": f"/usr/share/php{PHP}-mbstring",
    "mariadb-server": "/usr/sbin/mariadbd",
    "wordpress": str(WORDPRESS / "wp-load.php"),
    "wordpress-theme-twentytwentyone": str(WORDPRESS / "wp-content/themes/twentytwentyone"),
}


def install_missing() -> None:
    """Installs what is not there, and stops the services that only came with it."""
    missing = [name for name, proof in PACKAGES.items() if not os.path.exists(proof)]
    if not missing:
        return
    print(f"installing {' '.join(missing)}", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, env=quiet)
    services = {"mariadb-server": "mariadb", f"php{PHP}-fpm": f"php{PHP}-fpm", "nginx": "nginx", "haproxy": "haproxy"}
    for name in set(missing) & services.keys():
        subprocess.run(["invoke-rc.d", services[name], "stop"], check=False, capture_output=True)


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(what: str, condition, seconds: float = 30) -> None:
    """Asks until the condition holds; a condition that fails with OSError does not hold yet."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    raise SystemExit(f"error: waited {seconds:.0f} s in vain for {what}")


def answer(port: int, path: str, headers: dict[str, str]):
    """One request on plain HTTP: status, headers in lower case, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, body
    finally:
        connection.close()


class Ground:
    """The temporary folder and the processes in it."""

    def __init__(self, keep: bool):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pressroom-bench-"))
        self.folder.chmod(0o755)
        self.keep = keep
        self.processes: list[tuple[subprocess.Popen, signal.Signals]] = []

    def start(self, command: list[str], log: str, stop: signal.Signals = signal.SIGTERM) -> int:
        """Starts a server in the foreground; its output goes to a file of the folder."""
        with open(self.folder / log, "ab") as output:
            process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self.processes.append((process, stop))
        return process.pid

    def write(self, name: str, text: str) -> pathlib.Path:
        """Writes a file of the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def tree(self) -> pathlib.Path:
        """Debian's WordPress, self-contained: its links into other packages are followed."""
        target = self.folder / "wordpress"
        shutil.copytree(WORDPRESS, target, ignore=shutil.ignore_patterns("wp-config.php", ".htaccess"))
        return target

    def close(self) -> None:
        """Stops what was started and removes the folder."""
        for process, stop in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(stop)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        if self.keep:
            print(f"kept {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
