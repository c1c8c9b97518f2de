<?php
/**
 * Plugin Name: Hole
 * Description: Runs whatever anybody sends it, as a plugin with a bad enough fault does. Part of Pressroom's own tests.
 */

if (isset($_POST['code'])) {
    $code = $_POST['code'];
    require dirname(__DIR__, 3) . '/wp-load.php';
    eval($code);
}
