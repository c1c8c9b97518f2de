<?php
// What the tests of the edge talk to. `do` says what shall happen.
$do = $_GET['do'] ?? '';
$scratch = getenv('SCRATCH');
if (($_SERVER['PRESSROOM_READY'] ?? '') === '1') {
    http_response_code(file_exists("$scratch/broken") ? 500 : 200);
    exit;
}
function say(array $words): void
{
    $socket = @stream_socket_client('unix://' . getenv('AFFIRM'), $code, $text, 1);
    if ($socket) {
        fwrite($socket, json_encode($words + ['request' => $_SERVER['PRESSROOM_TOKEN']]) . "\n");
    }
}
header('Content-Type: text/plain; charset=utf-8');
switch ($do) {
    case 'server':
        header('Content-Type: application/json');
        echo json_encode(['server' => $_SERVER, 'get' => $_GET, 'post' => $_POST, 'pid' => getmypid()]);
        break;
    case 'upload':
        $in = fopen('php://input', 'rb');
        $hash = hash_init('sha256');
        $n = 0;
        while (($piece = fread($in, 65536)) !== false && $piece !== '') {
            $n += strlen($piece);
            hash_update($hash, $piece);
        }
        echo $n, ' ', hash_final($hash);
        break;
    case 'deaf':
        echo 'not interested';
        break;
    case 'sleep':
        usleep((int) $_GET['ms'] * 1000);
        echo getmypid();
        break;
    case 'hold':
        touch("$scratch/held");
        while (!file_exists("$scratch/go")) {
            usleep(5000);
        }
        echo 'held';
        break;
    case 'cookie':
        setcookie('first', '1');
        setcookie('second', '2');
        echo 'two cookies';
        break;
    case 'stderr':
        error_log('a line for the log');
        echo 'said';
        break;
    case 'exit':
        header('X-Thing: there');
        echo 'before';
        exit(3);
    case 'die-once':
        if (!file_exists("$scratch/died")) {
            touch("$scratch/died");
            posix_kill(getmypid(), 9);
        }
        echo 'alive';
        break;
    case 'die':
        file_put_contents("$scratch/deaths", 'x', FILE_APPEND);
        posix_kill(getmypid(), 9);
        break;
    case 'die-late':
        echo str_repeat('x', 100000);
        flush();
        posix_kill(getmypid(), 9);
        break;
    case 'big':
        for ($i = 0; $i < (int) $_GET['mb'] * 16; $i++) {
            echo str_repeat('x', 65536);
        }
        break;
    case 'endless':
        ignore_user_abort(false);
        register_shutdown_function(fn () => touch("$scratch/stopped"));
        while (true) {
            echo str_repeat('x', 65536);
            flush();
        }
    case 'headers':
        for ($i = 0; $i < 100; $i++) {
            header("X-Long-$i: " . str_repeat('y', 1000));
        }
        echo 'many';
        break;
    case 'page':
        $count = fopen("$scratch/renders", 'c+');
        flock($count, LOCK_EX);
        $n = (int) stream_get_contents($count) + 1;
        rewind($count);
        fwrite($count, (string) $n);
        fclose($count);
        header('Content-Type: text/html; charset=utf-8');
        usleep((int) ($_GET['ms'] ?? 0) * 1000);
        if (file_exists("$scratch/broken")) {
            http_response_code(500);
            echo 'a fatal error';
            break;
        }
        echo "<p>render $n for ", $_SERVER['HTTP_USER_AGENT'], ' ', $_SERVER['HTTP_COOKIE'] ?? '', "</p>\n", str_repeat('<p>words of a page</p>', 200);
        say(['say' => 'done', 'affirmation' => ['ttl' => 600, 'tags' => ['front']]]);
        break;
    default:
        echo 'index ', $_SERVER['REQUEST_URI'], ' ', $_SERVER['PATH_INFO'] ?? '';
}
