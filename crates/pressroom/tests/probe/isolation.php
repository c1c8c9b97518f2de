<?php
/**
 * Tries, from one site's PHP, everything that would be a breach of another site's walls, and the same things on its own site
 * as a control. Prints JSON: {"foreign": {what: "refused: …" | "ALLOWED: …"}, "own": {…}}. Part of Pressroom's own tests.
 *
 * Parameters: `data` (the data directory), `own` and `other` (names of sites), `pid` (a PHP worker of the other site).
 */

error_reporting(0);
ini_set('display_errors', '0');
header('Content-Type: application/json');
define('SHORTINIT', true);
require getenv('PRESSROOM_CONFIG') && is_readable((string) getenv('PRESSROOM_CONFIG')) ? __DIR__ . '/wp-load.php' : '/dev/null';

['data' => $data, 'own' => $own, 'other' => $other, 'pid' => $pid] = $_GET;

/** @param callable(): mixed $attempt what is false, null, empty or thrown was refused */
function outcome(callable $attempt): string
{
    error_clear_last();
    try {
        $got = $attempt();
    } catch (Throwable $refusal) {
        return 'refused: ' . substr($refusal->getMessage(), 0, 120);
    }
    if ($got === false || $got === null || $got === [] || $got === '') {
        return 'refused: ' . substr(error_get_last()['message'] ?? 'nothing came', 0, 120);
    }
    return 'ALLOWED: ' . substr(json_encode($got, JSON_PARTIAL_OUTPUT_ON_ERROR), 0, 160);
}

function connects(string $path): bool
{
    return is_resource(stream_socket_client("unix://$path", $code, $words, 2));
}

/** What is said on a line of an affirmation socket, or false. */
function says(string $path, string $line): string|false
{
    $socket = stream_socket_client("unix://$path", $code, $words, 2);
    if (!is_resource($socket)) {
        return false;
    }
    stream_set_timeout($socket, 2);
    fwrite($socket, $line . "\n");
    return fgets($socket);
}

function redis(): Redis
{
    $redis = new Redis();
    $redis->connect(PRESSROOM_REDIS_SOCKET, 0, 2);
    if (!$redis->auth([PRESSROOM_REDIS_USER, PRESSROOM_REDIS_PASSWORD])) {
        throw new RuntimeException('not authenticated');
    }
    return $redis;
}

/** Throws where Redis answers with an error. */
function asks(string ...$command): mixed
{
    $redis = redis();
    $answer = $redis->rawCommand(...$command);
    if ($redis->getLastError() !== null) {
        throw new RuntimeException($redis->getLastError());
    }
    return $answer ?? 'an empty answer';
}

/** The same on the server of the sessions, whose address and password are in php.ini. */
function sessions_ask(string ...$command): mixed
{
    [$server, $options] = explode('?', (string) get_cfg_var('session.save_path'), 2);
    parse_str($options, $options);
    $redis = new Redis();
    $redis->connect(substr($server, strlen('unix://')), 0, 2);
    if (!$redis->auth([$options['auth']['user'], $options['auth']['pass']])) {
        throw new LogicException('not authenticated');
    }
    $answer = $redis->rawCommand(...$command);
    if ($redis->getLastError() !== null) {
        throw new RuntimeException($redis->getLastError());
    }
    return $answer ?? 'an empty answer';
}

function database(string $sql): mixed
{
    [, $socket] = explode(':', DB_HOST, 2);
    mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
    $link = new mysqli('localhost', DB_USER, DB_PASSWORD, '', 0, $socket);
    $result = $link->query($sql);
    return $result === true ? 'done' : $result->fetch_all();
}

/** Everything readable below a folder, at most a few names. */
function readable_below(string $folder): array
{
    $found = [];
    foreach (scandir($folder) ?: [] as $name) {
        if ($name !== '.' && $name !== '..' && is_readable("$folder/$name") && count($found) < 5) {
            $found[] = $name;
        }
    }
    return $found;
}

$their = str_replace("_$own", "_$other", str_replace("-$own", "-$other", DB_NAME));
$their_database = $their === DB_NAME ? str_replace(str_replace('-', '_', $own), str_replace('-', '_', $other), DB_NAME) : $their;
$site = "$data/sites/$other";
$link_to = static function (string $name, string $target) use ($data, $own): string {
    $path = "$data/sites/$own/uploads/$name";
    is_link($path) || symlink($target, $path);
    return is_link($path) ? $path : '';
};

$foreign = [
    'list the folder of the site' => fn () => scandir($site),
    'read its configuration' => fn () => file_get_contents("$site/config/site.php"),
    'list its uploads' => fn () => scandir("$site/uploads"),
    'read an upload' => fn () => file_get_contents("$site/uploads/private.txt"),
    'write an upload' => fn () => file_put_contents("$site/uploads/planted.txt", 'x'),
    'list its temporary files' => fn () => scandir("$site/tmp"),
    'list its logs' => fn () => scandir("$site/logs"),
    'list its releases' => fn () => scandir("$site/releases"),
    'read secrets' => fn () => readable_below("$data/secrets"),
    'read its secrets' => fn () => file_get_contents("$data/secrets/site-$other.json"),
    'read the store' => fn () => file_get_contents("$data/store/state.redb", false, null, 0, 16),
    'read a TLS key' => fn () => array_filter(array_map('file_get_contents', glob("$data/tls/{,*/}*.key", GLOB_BRACE) ?: [])),
    "read MariaDB's data" => fn () => readable_below("$data/engines/mariadb/data"),
    "read Redis's files" => fn () => array_merge(...array_map('readable_below', glob("$data/engines/redis-*") ?: [[]])),
    'read the configuration of its PHP' => fn () => array_merge(...array_map('readable_below', glob("$data/engines/php-$other-*") ?: [[]])),
    'read the logs' => fn () => readable_below("$data/logs"),
    'write the snapshot' => fn () => file_put_contents("$data/snapshot/edge.json", '{}'),
    'read the snapshot' => fn () => file_get_contents("$data/snapshot/edge.json", false, null, 0, 16),
    'write the own code' => fn () => file_put_contents(__DIR__ . '/planted.php', '<?php'),
    'read the environment of its worker' => fn () => file_get_contents("/proc/$pid/environ"),
    'read files through its worker' => fn () => scandir("/proc/$pid/root"),
    'read the descriptors of its worker' => fn () => scandir("/proc/$pid/fd"),
    'signal its worker' => fn () => posix_kill((int) $pid, 0),
    'connect to its PHP' => fn () => array_filter(glob("$data/run/php/$other-*/fpm.sock") ?: ["$data/run/php/$other-1/fpm.sock"], 'connects'),
    'connect to the status of its PHP' => fn () => array_filter(["$data/run/php/$other-1/status.sock"], 'connects'),
    'connect to its affirmation socket' => fn () => connects("$data/run/affirm/$other/edge.sock"),
    'purge on its affirmation socket' => fn () => says("$data/run/affirm/$other/edge.sock", '{"say":"purge","all":true}'),
    'connect to the agent' => fn () => connects("$data/run/agent.sock"),
    'connect to the keeper' => fn () => connects("$data/run/keeper.sock"),
    'connect to the edge' => fn () => array_filter(["$data/run/edge.sock", "$data/run/edge/control.sock"], 'connects'),
    'see its database' => fn () => database("SHOW DATABASES LIKE '$their_database'"),
    'read its database' => fn () => database("SELECT user_login FROM `$their_database`.wp_users"),
    'write its database' => fn () => database("UPDATE `$their_database`.wp_options SET option_value = 'x' WHERE option_name = 'blogname'"),
    'read accounts' => fn () => database('SELECT User, authentication_string FROM mysql.user'),
    'read files by MariaDB' => fn () => array_filter(array_merge(...database("SELECT LOAD_FILE('$site/config/site.php')"))),
    'be root of MariaDB' => function () {
        [, $socket] = explode(':', DB_HOST, 2);
        mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
        return (bool) new mysqli('localhost', 'root', '', '', 0, $socket);
    },
    'see queries of others' => fn () => array_filter(database('SHOW PROCESSLIST'), static fn ($row) => $row[1] !== DB_USER),
    'read a key of its cache' => fn () => asks('GET', "$other:probe"),
    'write a key of its cache' => fn () => asks('SET', "$other:probe", 'x'),
    'read a session of its visitors' => fn () => sessions_ask('GET', "$other:session:probe"),
    'write a session of its visitors' => fn () => sessions_ask('SET', "$other:session:probe", 'x'),
    'run a script that stops everybody' => fn () => sessions_ask('EVAL', 'return 1', '0'),
    'list sessions' => fn () => sessions_ask('KEYS', '*'),
    'use Redis without a password' => function () {
        $redis = new Redis();
        $redis->connect(PRESSROOM_REDIS_SOCKET, 0, 2);
        return $redis->rawCommand('GET', 'probe') !== false || $redis->getLastError() === null;
    },
    'KEYS' => fn () => asks('KEYS', '*'),
    'SCAN' => fn () => asks('SCAN', '0'),
    'RANDOMKEY' => fn () => asks('RANDOMKEY'),
    'DBSIZE' => fn () => asks('DBSIZE'),
    'FLUSHDB' => fn () => asks('FLUSHDB'),
    'FLUSHALL' => fn () => asks('FLUSHALL'),
    'CONFIG' => fn () => asks('CONFIG', 'GET', '*'),
    'ACL' => fn () => asks('ACL', 'LIST'),
    'CLIENT LIST' => fn () => asks('CLIENT', 'LIST'),
    'MONITOR' => fn () => asks('MONITOR'),
    'DEBUG' => fn () => asks('DEBUG', 'OBJECT', "$other:probe"),
    'SHUTDOWN' => fn () => asks('SHUTDOWN', 'NOSAVE'),
    'EVAL beyond its keys' => fn () => asks('EVAL', "return redis.call('get', '$other:probe')", '0'),
    'EVAL that lists keys' => fn () => asks('EVAL', "return redis.call('keys', '*')", '0'),
    'COPY from it' => fn () => asks('COPY', "$other:probe", "$own:stolen"),
    'RENAME into it' => fn () => asks('RENAME', "$own:probe", "$other:stolen"),
    'SORT with a pattern' => fn () => asks('SORT', "$own:list", 'BY', "$other:*", 'GET', "$other:*"),
    'PUBLISH' => fn () => asks('PUBLISH', 'channel', 'x'),
];
// These are asked for over HTTP afterwards: the edge must not follow them.
$links = [
    $link_to('link-upload.txt', "$site/uploads/private.txt"),
    $link_to('link-config.txt', "$site/config/site.php"),
    $link_to('link-own-config.txt', "$data/sites/$own/config/site.php"),
    $link_to('link-folder', "$site/uploads"),
    $link_to('link-snapshot.json', "$data/snapshot/edge.json"),
];
$control = [
    'read the own configuration' => fn () => strlen((string) file_get_contents("$data/sites/$own/config/site.php")),
    'write an upload' => fn () => file_put_contents("$data/sites/$own/uploads/control.txt", 'x'),
    'read the own database' => fn () => database('SELECT option_value FROM `' . DB_NAME . "`.wp_options WHERE option_name = 'blogname'"),
    'use the own cache' => fn () => asks('SET', "$own:probe", 'x') && asks('GET', "$own:probe"),
    'use the own sessions' => fn () => sessions_ask('SET', "$own:session:probe", 'x', 'EX', '60') && sessions_ask('GET', "$own:session:probe"),
    'connect to the own affirmation socket' => fn () => says("$data/run/affirm/$own/edge.sock", '{"say":"purge","urls":["/nothing/"]}'),
];
// SHUTDOWN and the flushes come last, lest they hide what the others would have got.
uksort($foreign, static fn ($a, $b) => preg_match('/^(FLUSH|SHUTDOWN)/', $a) <=> preg_match('/^(FLUSH|SHUTDOWN)/', $b));
echo json_encode(['own' => array_map('outcome', $control), 'foreign' => array_map('outcome', $foreign), 'links' => $links], JSON_PRETTY_PRINT | JSON_UNESCAPED_SLASHES);
