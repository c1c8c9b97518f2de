"""A cluster of hosts on this machine (`pressroom lab`), and what visitors and editors ask it."""

import concurrent.futures
import ctypes
import http.client
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse

TLS = ssl._create_unverified_context()


class Connection(http.client.HTTPSConnection):
    """One request to one node's address, whatever the host name."""

    def __init__(self, host, address, patience, reach=2):
        super().__init__(host, 443, context=TLS, timeout=patience)
        self.address, self.reach = address, reach

    def connect(self):
        plain = socket.create_connection((self.address, 443), timeout=self.reach)
        plain.settimeout(self.timeout)
        self.sock = TLS.wrap_socket(plain, server_hostname=self.host)


def ask(host, address, method, path, body=None, headers=None, patience=6, reach=2):
    connection = Connection(host, address, patience, reach)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer
    finally:
        connection.close()


def sign_in(lab, password):
    """Cookies and the nonce of REST of the administrator."""
    host, address = lab["site"]["host"], lab["nodes"][0]["address"]
    form = urllib.parse.urlencode({"log": "admin", "pwd": password, "testcookie": 1})
    head = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "wordpress_test_cookie=WP+Cookie+check"}
    _, _, answer = ask(host, address, "POST", "/wp-login.php", form, head)
    cookie = "; ".join(value.split(";")[0] for name, value in answer.getheaders() if name.lower() == "set-cookie")
    _, nonce, _ = ask(host, address, "GET", "/wp-admin/admin-ajax.php?action=rest-nonce", None, {"Cookie": cookie})
    return {"Cookie": cookie, "X-WP-Nonce": nonce.decode().strip()}


def quiet(deadline=90):
    """Waits until the machine has half of its time left: what follows a release (compiled code, histories) is done by then."""
    until, calm = time.time() + deadline, 0
    before = None
    while calm < 3 and time.time() < until:
        fields = [int(it) for it in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        idle, total = fields[3] + fields[4], sum(fields)
        if before:
            calm = calm + 1 if (idle - before[0]) > 0.5 * (total - before[1]) else 0
        before = idle, total
        time.sleep(0.5)


def content(folder, plugin):
    """A `wp-content` with WordPress's themes and this must-use plugin."""
    made = pathlib.Path(folder) / "content"
    (made / "mu-plugins").mkdir(parents=True, exist_ok=True)
    (made / "plugins").mkdir(exist_ok=True)
    subprocess.run(["cp", "-rLT", "/usr/share/wordpress/wp-content/themes", made / "themes"], check=True)
    (made / "mu-plugins/lab.php").write_text(plugin)
    return made


class Lab:
    def __init__(self, binary, nodes, folder, *words):
        self.binary, self.folder = str(binary), folder
        self.up(nodes, *words)

    def up(self, nodes, *words):
        self.made = json.loads(self.run("lab", "up", "--nodes", str(nodes), "--zones", "a,b,c", "--yes", "--json", *words))
        self.names = [node["name"] for node in self.made["nodes"]]

    def on(self, name, *words):
        """Pressroom, on a host."""
        return self.run("lab", "exec", name, "--", self.binary, "--data", f"{self.folder}/{name}", *words)

    def password(self):
        return pathlib.Path(f"{self.folder}/admin-password").read_text().strip()

    def within(self, script, *words):
        """A script of Python's among the visitors; its output is a file's."""
        netns = self.made["client"]["netns"]
        return ["nsenter", f"--net=/run/netns/{netns}", sys.executable, str(script), *words]

    def down(self):
        subprocess.run([self.binary, "--data", self.folder, "lab", "down"], capture_output=True)

    def run(self, *words):
        done = subprocess.run([self.binary, "--data", self.folder, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            sys.exit(f"{' '.join(words)}: {done.stderr}")
        return done.stdout

    def status(self, name):
        done = subprocess.run([self.binary, "--data", f"{self.folder}/{name}", "status", "--json"], capture_output=True, text=True)
        try:
            return json.loads(done.stdout)
        except ValueError:
            return {}

    def pids(self, name):
        status = self.status(name)
        pids = {engine["name"]: engine["pid"] for engine in status.get("engines", [])}
        if "edge" in status:
            pids["edge"] = status["edge"]["pid"]
        for site in status.get("sites", []):
            pids.update({instance["id"]: instance["pid"] for instance in site["instances"]})
        return pids

    def nodes(self):
        """As those nodes have them that answer."""
        for name in self.names:
            done = subprocess.run([self.binary, "--data", f"{self.folder}/{name}", "node", "list", "--json"], capture_output=True, text=True)
            if done.returncode == 0:
                yield json.loads(done.stdout)["nodes"]

    def leader(self):
        for nodes in self.nodes():
            for node in nodes:
                if node["leader"] and node["is_up"]:
                    return node["name"]
        return None

    def settled(self, deadline=60):
        """All nodes serve, as all of them see it, and one leads."""
        until = time.time() + deadline
        while time.time() < until:
            lists = list(self.nodes())
            if len(lists) == len(self.names) and all(all(node["serves"] for node in nodes) for nodes in lists) and self.leader():
                return True
            time.sleep(0.3)
        return False

    def has_parked(self):
        """Whether instances of a former release still run somewhere."""
        return any(len(site["instances"]) > 1 for name in self.names for site in self.status(name).get("sites", []))

    def engine_processes(self, program):
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    words = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if words[0].endswith(program.encode()) and any(self.folder.encode() in word for word in words):
                    yield int(entry)


class Visitors:
    """Threads within the namespace of the lab's client."""

    def __init__(self, lab):
        self.lab = lab
        self.threads = concurrent.futures.ThreadPoolExecutor(16, initializer=self.enter)

    def enter(self):
        place = os.open(f"/run/netns/{self.lab.made['client']['netns']}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(place, 0x40000000):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(place)

    def do(self, work, *words):
        return self.threads.submit(work, *words)

    def ask(self, node, method, path, body=None, headers=None):
        return self.threads.submit(ask, self.lab.made["site"]["host"], node["address"], method, path, body, headers, 60)

    def get(self, node, path, headers=None):
        return self.ask(node, "GET", path, None, headers)

    def everywhere(self, path, nodes=None):
        """Status, body and answer of all nodes, asked at once."""
        asked = [self.get(node, path) for node in nodes or self.lab.made["nodes"]]
        return [it.result() for it in asked]

    def until_all(self, path, body, nodes=None, patience=60):
        """When the last node served that for the first time, by the clock."""
        return max(it.result() for it in [self.do(self.watch, node, path, body, patience) for node in nodes or self.lab.made["nodes"]])

    def watch(self, node, path, body, patience):
        """Asks on one connection, as a browser does: handshakes with all nodes thirty times a second would take half of a core."""
        connection = Connection(self.lab.made["site"]["host"], node["address"], 6)
        late = time.time() + patience
        while time.time() < late:
            try:
                connection.request("GET", path)
                if connection.getresponse().read() == body:
                    connection.close()
                    return time.time()
            except (OSError, http.client.HTTPException):
                connection.close()
            time.sleep(0.03)
        sys.exit(f"{node['name']} does not serve the new {path}")
