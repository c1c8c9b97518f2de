"""The peers: Debian's nginx with stock php-fpm and MariaDB, nginx's fastcgi_cache, and HAProxy's cache.

One private nginx serves all three from the same WordPress: uncached pages, its own cache, static files, and the origin
behind HAProxy. Only one of them is under load at a time, so a peer's cost is that of all these processes together.
Settings that favour the peers are chosen on purpose: stored bodies are compressed once, logs are buffered as the
operating system does, `tcp_nopush` is off (with it, chunked hits stall for 40 ms).
"""

import dataclasses
import gzip
import pathlib
import signal
import subprocess

from ground import HOST, PHP, Ground, answer, free_port, wait_until

BENCH = pathlib.Path(__file__).parent
STYLESHEET = "/wp-includes/css/dist/block-library/style.min.css"


@dataclasses.dataclass
class Target:
    """One address of one peer for one row."""

    peer: str
    port: int
    path: str
    roots: list[int]
    host: str = HOST
    cookie: str = ""

    def headers(self, encoding: str) -> dict[str, str]:
        """What every request carries."""
        given = {"Host": self.host}
        if encoding:
            given["Accept-Encoding"] = encoding
        if self.cookie:
            given["Cookie"] = self.cookie
        return given


MARIADB = """[mariadbd]
datadir={folder}/mysql
socket={folder}/mysqld.sock
pid-file={folder}/mysqld.pid
tmpdir={folder}
user=mysql
skip-networking
skip-name-resolve
innodb_flush_log_at_trx_commit=1
innodb_doublewrite=ON
innodb_buffer_pool_size=256M
character-set-server=utf8mb4
"""

FPM = """[global]
error_log = {folder}/fpm.log
daemonize = no
[www]
user = www-data
group = www-data
listen = {folder}/fpm.sock
listen.owner = www-data
listen.group = www-data
; Debian's values
pm = dynamic
pm.max_children = 5
pm.start_servers = 2
pm.min_spare_servers = 1
pm.max_spare_servers = 3
"""

WP_CONFIG = """<?php
define('DB_NAME', 'wordpress'); define('DB_USER', 'wordpress'); define('DB_PASSWORD', 'bench');
define('DB_HOST', 'localhost:{folder}/mysqld.sock'); define('DB_CHARSET', 'utf8mb4'); define('DB_COLLATE', '');
foreach (['AUTH_KEY','SECURE_AUTH_KEY','LOGGED_IN_KEY','NONCE_KEY','AUTH_SALT','SECURE_AUTH_SALT','LOGGED_IN_SALT','NONCE_SALT'] as $name)
    define($name, 'bench ' . $name);
define('WP_HOME', 'http://{host}'); define('WP_SITEURL', 'http://{host}');
define('WP_HTTP_BLOCK_EXTERNAL', true); define('DISABLE_WP_CRON', true);
$table_prefix = 'wp_';
if (!defined('ABSPATH')) define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
"""

NGINX = """user www-data;
worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.err warn;
events {{ worker_connections 4096; }}
http {{
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  sendfile on; tcp_nopush off; tcp_nodelay on;
  keepalive_timeout 65; keepalive_requests 100000000;
  types_hash_max_size 2048;
  open_file_cache max=2000 inactive=60s; open_file_cache_valid 60s; open_file_cache_min_uses 1;
  client_body_temp_path {folder}/ngx-body; proxy_temp_path {folder}/ngx-proxy; fastcgi_temp_path {folder}/ngx-fcgi;
  uwsgi_temp_path {folder}/ngx-uwsgi; scgi_temp_path {folder}/ngx-scgi;
  fastcgi_cache_path {folder}/ngx-cache levels=1:2 keys_zone=pages:16m inactive=10h max_size=1g use_temp_path=off;
  fastcgi_buffers 32 16k; fastcgi_buffer_size 16k;
  root {tree};
  index index.php;
{servers}
}}
"""

WORDPRESS_LOCATIONS = """
    location / {{ try_files $uri $uri/ /index.php$is_args$args; {static} }}
    location ~ \\.php$ {{ include /etc/nginx/fastcgi_params;
      fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; fastcgi_param HTTP_HOST $host;
      fastcgi_pass unix:{folder}/fpm.sock; {php} }}
"""

STORED_GZIP = """fastcgi_param PHP_VALUE "zlib.output_compression=On\\nzlib.output_compression_level=6";
      fastcgi_cache pages; fastcgi_cache_key "$request_method$host$request_uri$http_accept_encoding"; fastcgi_cache_valid 200 10h;
      fastcgi_ignore_headers Cache-Control Expires Set-Cookie Vary; fastcgi_cache_lock on;"""

HAPROXY = """global
  nbthread 2
  maxconn 4096
  log stdout format raw local0
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
cache pages
  total-max-size 64
  max-object-size 1000000
  max-age 36000
  process-vary on
frontend quiet
  bind 127.0.0.1:{quiet}
  http-request cache-use pages
  http-response cache-store pages
  default_backend origin
frontend logged
  bind 127.0.0.1:{logged}
  log global
  option httplog
  http-request cache-use pages
  http-response cache-store pages
  default_backend origin
backend origin
  server origin 127.0.0.1:{origin}
"""


class Peers:
    """The running peers and their addresses."""

    def __init__(self, ground: Ground):
        self.ground = ground
        self.tree = ground.tree()
        self.ports = {
            (server, logs): free_port() for server in ("plain", "cached", "haproxy", "origin") for logs in ("off", "on")
        }
        self.roots: list[int] = []
        self._database()
        self._php()
        self._nginx()
        self._haproxy()
        self._wait()

    def _fill(self, text: str, **more) -> str:
        return text.format(folder=self.ground.folder, tree=self.tree, host=HOST, **more)

    def _database(self) -> None:
        folder = self.ground.folder
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={folder}/mysql", "--user=mysql", "--skip-test-db"],
            check=True,
            capture_output=True,
        )
        subprocess.run(["chown", "mysql", folder], check=True)
        config = self.ground.write("my.cnf", self._fill(MARIADB))
        self.roots.append(self.ground.start(["/usr/sbin/mariadbd", f"--defaults-file={config}"], "mariadb.log"))
        sql = (
            "CREATE DATABASE wordpress CHARACTER SET utf8mb4;"
            "CREATE USER wordpress@localhost IDENTIFIED BY 'bench'; GRANT ALL ON wordpress.* TO wordpress@localhost;"
        )
        client = ["mariadb", "--no-defaults", f"--socket={folder}/mysqld.sock", "-uroot"]
        wait_until(
            "MariaDB", lambda: subprocess.run([*client, "-e", "SELECT 1"], capture_output=True).returncode == 0
        )
        subprocess.run([*client, "-e", sql], check=True)

    def _php(self) -> None:
        (self.tree / "wp-config.php").write_text(self._fill(WP_CONFIG))
        subprocess.run(["chown", "-R", "www-data:www-data", self.tree], check=True)
        as_owner = ["setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups", f"php{PHP}"]
        subprocess.run([*as_owner, BENCH / "seed.php", self.tree, HOST], check=True)
        css = self.tree / STYLESHEET[1:]
        css.with_name(css.name + ".gz").write_bytes(gzip.compress(css.read_bytes(), 6, mtime=0))
        config = self.ground.write("fpm.conf", self._fill(FPM))
        self.roots.append(self.ground.start([f"php-fpm{PHP}", "-F", "-y", config], "fpm.out", signal.SIGQUIT))

    def _nginx(self) -> None:
        servers = ""
        for logs in ("off", "on"):
            log = "access_log off;" if logs == "off" else f"access_log {self.ground.folder}/access.log combined;"
            for name, extra, static, php in (
                ("plain", "", "gzip_static on; gzip_vary on;", ""),
                ("cached", "", "", STORED_GZIP),
                (
                    "origin",
                    "gzip on; gzip_comp_level 6; gzip_vary on; gzip_proxied any; gzip_types text/css;",
                    'add_header Cache-Control "public, max-age=36000";',
                    'add_header Cache-Control "public, max-age=36000";',
                ),
            ):
                locations = self._fill(WORDPRESS_LOCATIONS, static=static, php=php)
                listen = f"listen 127.0.0.1:{self.ports[name, logs]} reuseport; server_name {HOST};"
                servers += f"  server {{ {listen} {log} {extra}{locations}  }}\n"
        config = self.ground.write("nginx.conf", self._fill(NGINX, servers=servers))
        self.roots.append(self.ground.start(["/usr/sbin/nginx", "-c", config], "nginx.out", signal.SIGQUIT))

    def _haproxy(self) -> None:
        ports = {
            "quiet": self.ports["haproxy", "off"],
            "logged": self.ports["haproxy", "on"],
            "origin": self.ports["origin", "off"],
        }
        config = self.ground.write("haproxy.cfg", HAPROXY.format(**ports))
        self.roots.append(self.ground.start(["/usr/sbin/haproxy", "-db", "-f", config], "haproxy.log"))

    def _wait(self) -> None:
        for (server, logs), port in self.ports.items():
            # With gzip from the first request on: HAProxy would give a stored plain copy to clients that take gzip.
            given = {"Host": HOST, "Accept-Encoding": "gzip"}
            wait_until(f"{server} (logs {logs})", lambda: answer(port, "/", given)[0] == 200)

    def targets(self, row: str, logs: str) -> list[Target]:
        """The peers of a row."""
        where = {
            "cached page": (("HAProxy cache", "haproxy", "/"), ("nginx fastcgi_cache", "cached", "/")),
            "static file": (("HAProxy cache", "haproxy", STYLESHEET), ("nginx gzip_static", "plain", STYLESHEET)),
            "uncached page": (("nginx + stock php-fpm", "plain", "/"),),
        }
        return [Target(peer, self.ports[server, logs], path, self.roots) for peer, server, path in where[row]]
