<?php
/**
 * Brings a site's tables to what its WordPress wants: `php upgrade.php [ROOT] --look|--run`.
 *
 * WordPress leaves that to the first administrator who comes by, and sends everybody who comes to the dashboard to a page with
 * a button until then. Pressroom does it itself, once, after a new release serves; `--look` says beforehand whether there is
 * anything to do, so that the tables can be dumped first. Both print one JSON object:
 * {"needed": bool, "from": number of the oldest schema, "to": number of WordPress's, "blogs": how many were behind}.
 * Exit status 0; 2 with {"error": …}.
 *
 * Always: no plugin and no theme is loaded; a second run changes nothing. Visitors are served all the while: WordPress's changes
 * of the schema keep what the pages need.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

if ( 'cli' !== PHP_SAPI ) {
	exit( 1 );
}

$pressroom_arguments = array_slice( $argv, 1 );
$pressroom_run       = in_array( '--run', $pressroom_arguments, true );
$pressroom_root      = rtrim( current( preg_grep( '/^--/', $pressroom_arguments, PREG_GREP_INVERT ) ) ?: __DIR__, '/' );

// Plugins are not loaded while WordPress is being installed, which is how its own upgrade runs, too.
define( 'WP_INSTALLING', true );
require_once __DIR__ . '/request.php';
pressroom_request( $pressroom_root, '/wp-admin/upgrade.php' );
require $pressroom_root . '/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';

/** Upgrades the tables of the current blog, if they are behind. Returns the number of their schema, or null if it is the right one. */
function pressroom_upgrade_blog( bool $run ): ?int {
	global $wp_db_version, $wp_current_db_version;
	$wp_current_db_version = (int) __get_option( 'db_version' );
	if ( (int) $wp_db_version === $wp_current_db_version || 0 === $wp_current_db_version ) {
		return null;
	}
	$from = $wp_current_db_version;
	if ( $run ) {
		wp_upgrade();
	}
	return $from;
}

try {
	$pressroom_behind = array();
	if ( is_multisite() ) {
		foreach ( get_sites( array( 'fields' => 'ids', 'number' => 0 ) ) as $pressroom_blog ) {
			switch_to_blog( (int) $pressroom_blog );
			$pressroom_behind[] = pressroom_upgrade_blog( $pressroom_run );
			restore_current_blog();
		}
	} else {
		$pressroom_behind[] = pressroom_upgrade_blog( $pressroom_run );
	}
	$pressroom_behind = array_filter( $pressroom_behind );
	if ( $pressroom_run && $pressroom_behind ) {
		wp_cache_flush();
	}
	$pressroom_result = array(
		'needed' => array() !== $pressroom_behind,
		'from'   => $pressroom_behind ? min( $pressroom_behind ) : (int) $wp_db_version,
		'to'     => (int) $wp_db_version,
		'blogs'  => count( $pressroom_behind ),
	);
	$pressroom_status = 0;
} catch ( Throwable $pressroom_error ) {
	$pressroom_result = array( 'error' => $pressroom_error->getMessage() );
	$pressroom_status = 2;
}
fwrite( STDOUT, json_encode( $pressroom_result, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE ) . "\n" );
exit( $pressroom_status );
