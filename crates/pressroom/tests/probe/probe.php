<?php
/**
 * Plugin Name: Probe
 *
 * A plugin that misbehaves on request (`?probe=…`), shows everything that PHP was told about the visitor, and stops at
 * named steps of a request while a file asks it to. Part of Pressroom's own tests.
 */

/** The folder by which a test and this plugin talk. */
function probe_folder(): string
{
    return WP_CONTENT_DIR . '/uploads/probe';
}

/** Waits here while the test holds this step. */
function probe_step(string $step): void
{
    $hold = probe_folder() . "/hold-$step";
    if (!is_file($hold)) {
        return;
    }
    file_put_contents(probe_folder() . "/held-$step", (string) getmypid());
    for ($i = 0; $i < 2000 && is_file($hold); $i++) {
        usleep(10000);
        clearstatcache();
    }
}

function probe_is_reading(): bool
{
    return ($_SERVER['REQUEST_METHOD'] ?? '') === 'GET' && !is_admin() && PHP_SAPI !== 'cli';
}

foreach (['plugins_loaded', 'init', 'wp', 'template_redirect', 'loop_start', 'loop_end', 'wp_footer'] as $hook) {
    add_action($hook, static fn () => probe_is_reading() && probe_step("read-$hook"));
}
add_action('shutdown', static fn () => probe_is_reading() && probe_step('read-shutdown'), 0);
add_action('pre_post_update', static fn () => probe_step('save-before'));
add_action('clean_post_cache', static fn () => probe_step('save-committed'), 0);
add_action('save_post', static fn () => probe_step('save-hook'));
add_action('shutdown', static fn () => defined('REST_REQUEST') && $_SERVER['REQUEST_METHOD'] === 'POST' && probe_step('save-shutdown'), 0);

// A careless plugin: prints whatever it is told about the visitor.
add_action('wp_footer', static function (): void {
    $told = $_SERVER + ['cookies' => $_COOKIE, 'get' => $_GET, 'user' => wp_get_current_user()->display_name];
    unset($told['PRESSROOM_TOKEN']);
    echo '<!-- told: ', esc_html((string) wp_json_encode($told)), ' nonce: ', wp_create_nonce('probe'), ' -->';
});

add_action('init', static function (): void {
    switch ($_GET['probe'] ?? '') {
        case 'exit':
            exit('an early end');
        case 'fatal':
            probe_no_such_function();
        case 'session':
            session_start();
            $_SESSION['seen'] = true;
            break;
        case 'cookie':
            setcookie('probe_cart', $_GET['value'] ?? 'apples', 0, '/');
            break;
        case 'no-cache':
            nocache_headers();
            break;
        case 'do-not-cache':
            define('DONOTCACHEPAGE', true);
            break;
        case 'header-private':
            header('Cache-Control: private');
            break;
    }
});

add_action('template_redirect', static function (): void {
    switch ($_GET['probe'] ?? '') {
        case 'exit-late':
            exit('<html><body>a late end</body></html>');
        case 'redirect':
            wp_redirect(home_url('/somewhere/'), 301);
            exit;
        case 'redirect-302':
            wp_redirect(home_url('/somewhere/'), 302);
            exit;
    }
});

add_action('wp_footer', static function (): void {
    switch ($_GET['probe'] ?? '') {
        case 'fatal-in-footer':
            probe_no_such_function();
        case 'exit-in-footer':
            exit;
        case 'flush':
            while (ob_get_level() > 0) {
                ob_end_flush();
            }
            flush();
            echo '<!-- streamed -->';
            break;
        case 'flush-fatal':
            while (ob_get_level() > 0) {
                ob_end_flush();
            }
            flush();
            probe_no_such_function();
        case 'finish':
            fastcgi_finish_request();
            break;
        case 'finish-fatal':
            fastcgi_finish_request();
            probe_no_such_function();
        case 'memory':
            $hoard = [];
            while (true) {
                $hoard[] = str_repeat('x', 1 << 20);
            }
        case 'loop':
            while (true) {
            }
        case 'die':
            posix_kill(posix_getpid(), 9);
            sleep(5);
            break;
        case 'endless':
            while (true) {
                echo str_repeat('x', 1 << 20);
            }
    }
});
