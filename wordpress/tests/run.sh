#!/bin/sh
# Tests of the PHP part: a private MariaDB, two Redis (with the ACL users of README.md) and php-fpm in a temporary directory, unix
# sockets only, and a copy of WordPress. Usage: wordpress/tests/run.sh [FILTER]. Needs the packages of `pressroom up`.
# Environment: WORDPRESS (default /usr/share/wordpress), PHP (default php), PHP_FPM, KEEP=1 leaves the directory.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
: "${WORDPRESS:=/usr/share/wordpress}" "${PHP:=php}"
: "${PHP_FPM:=$(ls /usr/sbin/php-fpm* 2>/dev/null | tail -1)}"
lab=$(mktemp -d /tmp/pressroom-wp.XXXXXX)
chmod 755 "$lab"
pids=""
clean() {
	for pid in $pids; do kill -CONT "$pid" 2>/dev/null || :; kill -TERM "$pid" 2>/dev/null || :; done
	for pid in $pids; do
		n=0
		while kill -0 "$pid" 2>/dev/null && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
		kill -KILL "$pid" 2>/dev/null || :
	done
	[ "${KEEP:-}" ] && echo "kept $lab" || rm -rf "$lab"
}
trap clean EXIT
trap 'exit 130' INT TERM
until_true() { n=0; until "$@" >/dev/null 2>&1; do n=$((n + 1)); [ $n -lt 200 ] || { echo "gave up on: $*" >&2; exit 2; }; sleep 0.05; done; }

site=$lab/site
mkdir -p "$site/releases/r1" "$site/config" "$site/tmp" "$lab/db"
cp -rL "$WORDPRESS/." "$site/releases/r1/"
root=$site/releases/r1
rm -rf "$root/wp-content/plugins" "$root/.htaccess"
mkdir -p "$root/wp-content/plugins" "$root/wp-content/uploads" "$root/wp-content/mu-plugins" "$root/wp-content/themes"
cp "$here/../wp-config.php" "$root/"
cp "$here/../object-cache.php" "$root/wp-content/"
cp -r "$here/../mu-plugins/." "$root/wp-content/mu-plugins/"
cp -r "$here/theme" "$root/wp-content/themes/lab"
cp "$here/probe-plugin.php" "$root/wp-content/mu-plugins/zz-probe.php"
cp "$here/session-page.php" "$root/"
for script in request cron install network rewrite addresses serialised values database environment; do cp "$here/../$script.php" "$lab/"; done

user_option=""
[ "$(id -u)" = 0 ] && user_option="--user=root"
mariadb-install-db --no-defaults $user_option --datadir="$lab/db" --auth-root-authentication-method=normal --skip-test-db >"$lab/install-db.log" 2>&1
mariadbd --no-defaults $user_option --datadir="$lab/db" --socket="$lab/db.sock" --skip-networking --pid-file="$lab/db.pid" \
	--innodb-flush-log-at-trx-commit=2 --innodb-buffer-pool-size=64M >"$lab/db.log" 2>&1 &
pids="$pids $!"

# The lists are those in README.md.
commands() { sed -n "/^<!-- $1 commands -->\$/,/^<!-- end -->\$/p" "$here/../README.md" | grep '^+' | tr '\n' ' '; }
cat >"$lab/redis.conf" <<CONF
port 0
unixsocket $lab/redis.sock
dir $lab
save ""
appendonly no
maxmemory 64mb
maxmemory-policy allkeys-lfu
user default off
user site-blog on >redis-secret ~blog:* resetchannels -@all $(commands redis)
user lab on >lab ~* &* +@all
CONF
redis-server "$lab/redis.conf" >"$lab/redis.log" 2>&1 &
redis_pid=$!
pids="$pids $redis_pid"
mkdir "$lab/sessions" "$lab/ini"
cat >"$lab/sessions.conf" <<CONF
port 0
unixsocket $lab/sessions.sock
dir $lab/sessions
save ""
appendonly yes
maxmemory 64mb
maxmemory-policy noeviction
user default off
user site-blog on >sessions-secret ~blog:* resetchannels -@all $(commands sessions)
user lab on >lab ~* &* +@all
CONF
redis-server "$lab/sessions.conf" >"$lab/sessions.log" 2>&1 &
sessions_pid=$!
pids="$pids $sessions_pid"
# As in the php.ini that Pressroom renders. The time limit counts for locks; php-fpm has a longer one for the pages.
cat >"$lab/ini/sessions.ini" <<CONF
max_execution_time = 2
session.save_handler = redis
session.save_path = "unix://$lab/sessions.sock?auth[user]=site-blog&auth[pass]=sessions-secret&prefix=blog:session:&timeout=2&read_timeout=5&persistent=1"
session.gc_maxlifetime = 172800
session.use_strict_mode = 1
redis.session.locking_enabled = 0
CONF

cat >"$site/config/site.php" <<CONF
<?php
\$table_prefix = 'wp_';
define( 'DB_NAME', 'wp' ); define( 'DB_USER', 'root' ); define( 'DB_PASSWORD', '' ); define( 'DB_HOST', 'localhost:$lab/db.sock' );
define( 'DB_CHARSET', 'utf8mb4' ); define( 'DB_COLLATE', '' );
foreach ( array( 'AUTH_KEY', 'SECURE_AUTH_KEY', 'LOGGED_IN_KEY', 'NONCE_KEY', 'AUTH_SALT', 'SECURE_AUTH_SALT', 'LOGGED_IN_SALT', 'NONCE_SALT' ) as \$name ) { define( \$name, md5( \$name ) ); }
if ( is_file( '$site/config/network.php' ) ) { require '$site/config/network.php'; } else { define( 'WP_HOME', 'https://lab.test' ); define( 'WP_SITEURL', 'https://lab.test' ); }
define( 'PRESSROOM_REDIS_SOCKET', getenv( 'LAB_REDIS' ) ?: '$lab/redis.sock' );
define( 'PRESSROOM_REDIS_USER', 'site-blog' ); define( 'PRESSROOM_REDIS_PASSWORD', 'redis-secret' ); define( 'PRESSROOM_REDIS_PREFIX', 'blog:' );
define( 'WP_DEBUG', true ); define( 'WP_DEBUG_LOG', '$lab/debug.log' ); define( 'WP_DEBUG_DISPLAY', false );
CONF
cat >"$lab/fpm.conf" <<CONF
[global]
error_log = $lab/fpm.log
daemonize = no
[site]
listen = $lab/fpm.sock
$( [ "$(id -u)" = 0 ] && printf 'user = root\ngroup = root\n' )
pm = static
pm.max_children = 2
catch_workers_output = yes
env[PRESSROOM_SITE] = blog
env[PRESSROOM_AFFIRM] = $lab/edge.sock
env[PRESSROOM_CONFIG] = $site/config/site.php
env[LAB_SESSIONS] = $lab/sessions.sock
env[LAB_SESSIONS_PID] = $sessions_pid
php_admin_value[error_log] = $lab/php.log
php_admin_value[max_execution_time] = 20
php_admin_value[opcache.revalidate_freq] = 0
CONF
PHP_INI_SCAN_DIR=":$lab/ini" "$PHP_FPM" -R -F -y "$lab/fpm.conf" >"$lab/fpm.out" 2>&1 &
pids="$pids $!"

export PRESSROOM_CONFIG="$site/config/site.php" PRESSROOM_AFFIRM="$lab/edge.sock" PRESSROOM_SITE=blog
export LAB="$lab" LAB_ROOT="$root" LAB_REDIS_PID="$redis_pid" LAB_SESSIONS="$lab/sessions.sock" LAB_SESSIONS_PID="$sessions_pid" LAB_PHP="$PHP"
"$PHP" "$here/edge.php" "$lab/edge.sock" "$lab/edge.log" >"$lab/edge.out" 2>&1 &
pids="$pids $!"
until_true mariadb --no-defaults -u root -S "$lab/db.sock" -e 'CREATE DATABASE IF NOT EXISTS wp'
until_true test -S "$lab/redis.sock"
until_true test -S "$lab/sessions.sock"
until_true test -S "$lab/edge.sock"
until_true test -S "$lab/fpm.sock"
"$PHP" "$here/run.php" "$@"
