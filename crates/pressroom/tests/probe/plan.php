<?php
/**
 * A must-use plugin whose scheduled event says what the command line's PHP sees. Part of Pressroom's own tests.
 */

add_action('walls_probe', static function (): void {
    $uploads = wp_upload_dir()['basedir'];
    $seen = [
        'sapi' => PHP_SAPI,
        'code' => ABSPATH,
        'sites' => array_values(array_diff(scandir(dirname(realpath($uploads), 2)) ?: [], ['.', '..'])),
        'processes' => array_values(array_filter(scandir('/proc') ?: [], 'is_numeric')),
        'planted' => @touch(ABSPATH . 'planted.php'),
        'status' => file_get_contents('/proc/self/status'),
        'group' => file_get_contents('/proc/self/cgroup'),
    ];
    file_put_contents("$uploads/seen.tmp", json_encode($seen));
    rename("$uploads/seen.tmp", "$uploads/seen.json");
});
