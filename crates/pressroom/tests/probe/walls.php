<?php
/**
 * What code that came in through a hole can do to the machine, and what a site needs all the same. Evaluated within WordPress;
 * prints JSON: {"seen": {place: names}, "refused": {what: outcome}, "works": {what: outcome}}. Part of Pressroom's own tests.
 *
 * Parameters: `data` (the data directory), `own` (the site), `pid` (a process of somebody else).
 */

error_reporting(0);
header('Content-Type: application/json');
['data' => $data, 'own' => $own, 'pid' => $pid] = array_map('wp_unslash', $_POST);
$uploads = "$data/sites/$own/uploads";

/** @param callable(): mixed $attempt what is false, null, empty or thrown was refused */
$outcome = static function (callable $attempt): string {
    error_clear_last();
    try {
        $got = $attempt();
    } catch (Throwable $refusal) {
        return 'refused: ' . substr($refusal->getMessage(), 0, 160);
    }
    if ($got === false || $got === null || $got === [] || $got === '' || $got instanceof WP_Error) {
        $words = $got instanceof WP_Error ? $got->get_error_message() : error_get_last()['message'] ?? 'nothing came';
        return 'refused: ' . substr($words, 0, 160);
    }
    return 'ALLOWED: ' . substr(json_encode($got, JSON_PARTIAL_OUTPUT_ON_ERROR), 0, 160);
};

/** Whether a command ended well. */
$runs = static function (string $command): bool {
    exec("$command 2>&1", $lines, $status);
    return $status === 0;
};

/** Whether the kernel did a call, by its number on x86-64; `arguments` as Perl writes them. */
$calls = static fn (int $number, string $arguments): bool => php_uname('m') === 'x86_64' && $runs("perl -e 'exit(syscall($number, $arguments) == -1)'");

$names = static function (string $folder): array {
    $found = array_values(array_diff(scandir($folder) ?: [], ['.', '..']));
    sort($found);
    return $found;
};

/** Every folder of the code, and every hundredth file, that could be changed. */
$writable = static function (): array {
    $changed = [];
    $tree = new RecursiveIteratorIterator(
        new RecursiveDirectoryIterator(ABSPATH, FilesystemIterator::SKIP_DOTS),
        RecursiveIteratorIterator::SELF_FIRST,
    );
    $count = 0;
    foreach ($tree as $path => $entry) {
        if ($entry->isLink()) {
            continue;
        }
        $file = $entry->isDir() ? "$path/planted.php" : $path;
        if (($entry->isDir() || ++$count % 100 === 0) && (touch($file) || file_put_contents($file, '') !== false || chmod($path, 0777))) {
            $changed[] = $path;
        }
    }
    return $count < 500 ? ["only $count files were seen"] : $changed;
};

$refused = [
    'touch anything in the code' => $writable,
    'touch the root of the code' => fn () => touch(ABSPATH . 'planted.php'),
    'rename code' => fn () => rename(ABSPATH . 'index.php', ABSPATH . 'other.php'),
    'remove code' => fn () => unlink(ABSPATH . 'index.php'),
    'touch by a command' => fn () => $runs('touch ' . ABSPATH . 'planted.php'),
    'change the own configuration' => fn () => file_put_contents("$data/sites/$own/config/site.php", ''),
    'write the root' => fn () => touch('/planted'),
    'write /etc' => fn () => touch('/etc/planted'),
    'write /usr' => fn () => touch('/usr/planted'),
    'write the data directory' => fn () => touch("$data/planted"),
    'read other users' => fn () => preg_grep("/^(root|nobody|[a-z-]*$own):/", file('/etc/passwd'), PREG_GREP_INVERT),
    'read /etc/shadow' => fn () => file_get_contents('/etc/shadow'),
    'read the kernel' => fn () => $names('/sys'),
    'list homes' => fn () => $names('/home') ?: $names('/root'),
    'see another process' => fn () => file_exists("/proc/$pid"),
    'signal another process' => fn () => posix_kill((int) $pid, 0),
    'reach the keeper' => fn () => file_exists("$data/run/keeper.sock"),
    'reach the agent' => fn () => file_exists("$data/run/agent.sock"),
    'run what was uploaded' => fn () => copy('/bin/true', "$uploads/true") && chmod("$uploads/true", 0755) && $runs("$uploads/true"),
    'run from the folder for temporary files' => fn () => copy('/bin/true', sys_get_temp_dir() . '/true') && chmod(sys_get_temp_dir() . '/true', 0755) && $runs(sys_get_temp_dir() . '/true'),
    'make a device' => fn () => $runs('mknod ' . sys_get_temp_dir() . '/disk b 254 0'),
    'become root' => fn () => $runs('su -c true') || $runs('sudo -n true') || posix_setuid(0),
    'mount' => fn () => $calls(165, '0, 0, 0, 0, 0') || $runs('mount -t tmpfs tmpfs ' . sys_get_temp_dir()),
    'unshare' => fn () => $calls(272, '0x10000000') || $runs('unshare --user --map-root-user true'),
    'enter another namespace' => fn () => $calls(308, '0, 0'),
    'trace' => fn () => $calls(101, '0, 0, 0, 0'),
    'chroot' => fn () => $calls(161, '0'),
    'load into the kernel' => fn () => $calls(321, '0, 0, 0') || $calls(175, '0, 0, 0'),
    'listen to the network' => fn () => $calls(41, '17, 3, 0'),
    'change the memory of the first process' => fn () => is_resource(fopen('/proc/1/mem', 'r+')),
];

$image = static function (string $editor) use ($uploads): string|false|WP_Error {
    add_filter('wp_image_editors', static fn () => [$editor]);
    $canvas = imagecreatetruecolor(640, 480);
    imagepng($canvas, "$uploads/picture.png");
    $edited = wp_get_image_editor("$uploads/picture.png");
    if (is_wp_error($edited)) {
        return $edited;
    }
    $edited->resize(100, 100, true);
    $saved = $edited->save("$uploads/small.jpg", 'image/jpeg');
    return is_wp_error($saved) ? $saved : $saved['file'];
};

$works = [
    'keep an upload' => fn () => wp_upload_bits('walls.txt', null, 'text')['error'] === false,
    'edit an image by GD' => fn () => $image('WP_Image_Editor_GD'),
    'edit an image by ImageMagick' => fn () => !extension_loaded('imagick') ? 'not installed' : $image('WP_Image_Editor_Imagick'),
    'send mail' => fn () => mail('somebody@example.com', 'Walls', 'a letter') && str_contains(file_get_contents(sys_get_temp_dir() . '/mail'), 'a letter'),
    'find an address' => fn () => gethostbyname('localhost') === '127.0.0.1',
    'know the name servers' => fn () => !file_exists('/etc/resolv.conf') || is_readable('/etc/resolv.conf'),
    'ask itself over HTTPS' => fn () => wp_remote_retrieve_response_code(wp_remote_get(home_url('/?itself'), ['sslverify' => false])) === 200,
    'know who signs certificates' => fn () => count(openssl_x509_parse(file_get_contents(openssl_get_cert_locations()['default_cert_file']) ?: file_get_contents('/etc/ssl/certs/ca-certificates.crt'))) > 0,
    'run a program' => fn () => exec('uname -s') === 'Linux',
    'run two programs' => fn () => trim((string) shell_exec('printf a | tr a b')) === 'b',
    'make a temporary file' => fn () => is_resource(tmpfile()) && file_put_contents(tempnam('', 'x'), 'x') === 1,
    'use shared memory' => fn () => touch('/dev/shm/x') && shmop_open(17, 'c', 0600, 100) !== false,
    'use random bytes' => fn () => strlen(file_get_contents('/dev/urandom', false, null, 0, 8)) === 8,
    'know time zones' => fn () => (new DateTimeZone('Europe/Vienna'))->getOffset(new DateTime('2026-01-01')) === 3600,
    'know its own user' => fn () => str_ends_with(posix_getpwuid(posix_getuid())['name'], $own),
    'begin a session' => fn () => session_start() && session_write_close(),
    'use the database' => fn () => $GLOBALS['wpdb']->get_var('SELECT 1'),
    'use the cache' => fn () => wp_cache_set('walls', 'x') && wp_cache_get('walls') === 'x',
];

$seen = [
    'code' => [ABSPATH],
    'root' => $names('/'),
    'data' => $names($data),
    'sites' => $names("$data/sites"),
    'site' => $names("$data/sites/$own"),
    'run' => $names("$data/run"),
    'engines' => array_map(static fn ($name) => preg_replace('/\d+$/', 'N', $name), $names("$data/engines")),
    'processes' => array_values(array_filter($names('/proc'), 'is_numeric')),
];
echo json_encode(['seen' => $seen, 'refused' => array_map($outcome, $refused), 'works' => array_map($outcome, $works)], JSON_PRETTY_PRINT | JSON_UNESCAPED_SLASHES);
