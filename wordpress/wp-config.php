<?php
/**
 * The configuration of every release: says where the site's own configuration is, and who keeps PHP's sessions.
 *
 * Secrets, sockets and the table prefix are in `config/site.php` beside the releases, readable by the site alone, so a
 * release holds no secret and may be shared. wp-cli evaluates this file without its last line.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

require getenv( 'PRESSROOM_CONFIG' ) ?: dirname( __DIR__, 2 ) . '/config/site.php';

if ( ! defined( 'ABSPATH' ) ) {
	define( 'ABSPATH', __DIR__ . '/' );
}

// A readiness probe must not be fooled by maintenance mode, which WordPress checks before any plugin can be loaded. The
// parameter cannot come from a client: those arrive with the prefix HTTP_.
if ( '1' === ( $_SERVER['PRESSROOM_READY'] ?? '' ) ) {
	$GLOBALS['wp_filter']['enable_maintenance_mode'][10]['pressroom_ready'] = array(
		'function'      => static function () {
			return false;
		},
		'accepted_args' => 0,
	);
	// Of a network the main blog is asked, whichever host the probe came through.
	if ( defined( 'DOMAIN_CURRENT_SITE' ) ) {
		$_SERVER['HTTP_HOST'] = DOMAIN_CURRENT_SITE;
	}
}

// PHP's sessions, before any plugin can begin one. The command line has no visitors; there php.ini's handler will do.
if ( 'cli' !== PHP_SAPI ) {
	require_once ABSPATH . 'wp-content/mu-plugins/pressroom/sessions.php';
	Pressroom_Sessions::register();
}

// A database that does not answer is a matter of moments: clients and search engines shall come again, which 500 does not say.
header_register_callback(
	static function () {
		if ( 500 === http_response_code() && isset( $GLOBALS['wpdb'] ) && empty( $GLOBALS['wpdb']->ready ) ) {
			header( 'HTTP/1.1 503 Service Unavailable', true, 503 );
			header( 'Retry-After: 5' );
		}
	}
);

// The check of a release: PHP's own message of a fatal error is wanted, not a mail to the administrator.
if ( '1' === ( $_SERVER['PRESSROOM_CHECK'] ?? '' ) && ! defined( 'WP_DISABLE_FATAL_ERROR_HANDLER' ) ) {
	define( 'WP_DISABLE_FATAL_ERROR_HANDLER', true );
}

require_once ABSPATH . 'wp-settings.php';
