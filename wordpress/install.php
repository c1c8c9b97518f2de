<?php
/**
 * Installs WordPress without asking: `php install.php [ROOT]`, with one JSON object on standard input.
 *
 * {"url": …, "title": …, "user": …, "email": …, "password": …, "locale": …, "network": "subdirectories"|"subdomains", "upload_limit": …};
 * the last three are optional. The password comes on standard
 * input because arguments can be read by everybody on the machine. ROOT is WordPress's directory (default: this file's).
 *
 * Prints one JSON object: {"installed": true} when it installed, {"installed": false, "reason": "already installed"} when there was
 * nothing to do; "network" says what was done about one: "made", "moved" to another address, or "there". Exit status 0; 1 bad input; 2 failure, with {"error": …}.
 *
 * Always: a second run changes nothing. No mail is sent. A network does not become a single site again, nor one of the other kind.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

if ( 'cli' !== PHP_SAPI ) {
	exit( 1 );
}

function pressroom_install_end( array $result, int $status ): void {
	fwrite( STDOUT, json_encode( $result, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE ) . "\n" );
	exit( $status );
}

function wp_mail() {
	return true;
}

/** Replaces core's: no welcome mail from an unattended installation. */
function wp_new_blog_notification() {
}

// WordPress tries its permalinks by asking itself, and nobody answers yet: ten seconds for nothing.
$GLOBALS['wp_filter']['pre_http_request'][10]['pressroom_install'] = array(
	'function'      => static function () {
		return new WP_Error( 'http_request_not_executed', 'No requests during the installation.' );
	},
	'accepted_args' => 0,
);

$pressroom_wish = json_decode( (string) stream_get_contents( STDIN ), true );
if ( ! is_array( $pressroom_wish ) ) {
	pressroom_install_end( array( 'error' => 'standard input is not a JSON object' ), 1 );
}
foreach ( array( 'url', 'title', 'user', 'email', 'password' ) as $pressroom_field ) {
	if ( ! is_string( $pressroom_wish[ $pressroom_field ] ?? null ) || '' === $pressroom_wish[ $pressroom_field ] ) {
		pressroom_install_end( array( 'error' => "`$pressroom_field` is missing" ), 1 );
	}
}

$pressroom_network = $pressroom_wish['network'] ?? null;
require __DIR__ . '/network.php';
if ( null !== $pressroom_network && ! in_array( $pressroom_network, Pressroom_Install_Network::KINDS, true ) ) {
	pressroom_install_end( array( 'error' => '`network` is neither `subdirectories` nor `subdomains`' ), 1 );
}

$pressroom_url = parse_url( $pressroom_wish['url'] );
if ( empty( $pressroom_url['host'] ) ) {
	pressroom_install_end( array( 'error' => '`url` has no host: ' . $pressroom_wish['url'] ), 1 );
}
$_SERVER['HTTP_HOST']       = $pressroom_url['host'] . ( isset( $pressroom_url['port'] ) ? ':' . $pressroom_url['port'] : '' );
$_SERVER['SERVER_NAME']     = $pressroom_url['host'];
$_SERVER['REQUEST_URI']     = '/';
$_SERVER['REQUEST_METHOD']  = 'GET';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
$_SERVER['REMOTE_ADDR']     = '127.0.0.1';
if ( 'https' === ( $pressroom_url['scheme'] ?? 'http' ) ) {
	$_SERVER['HTTPS'] = 'on';
}

define( 'WP_INSTALLING', true );
if ( null !== $pressroom_network ) {
	// The configuration is a network's already, its tables may not be there.
	define( 'MULTISITE', false );
	define( 'WP_HOME', $pressroom_wish['url'] );
	define( 'WP_SITEURL', $pressroom_wish['url'] );
}

$pressroom_root = rtrim( $argv[1] ?? __DIR__, '/' );
ob_start();
register_shutdown_function(
	static function () {
		$error = error_get_last();
		if ( $error && ( $error['type'] & ( E_ERROR | E_PARSE | E_COMPILE_ERROR | E_RECOVERABLE_ERROR ) ) ) {
			pressroom_install_end( array( 'error' => $error['message'] ), 2 );
		}
		if ( ! defined( 'PRESSROOM_INSTALL_ENDED' ) ) {
			// WordPress ended the process itself, with a page for people.
			$said = trim( preg_replace( '/\s+/', ' ', html_entity_decode( strip_tags( preg_replace( '~<(style|script|head).*?</\1>~is', '', (string) ob_get_clean() ) ) ) ) );
			pressroom_install_end( array( 'error' => '' === $said ? 'WordPress ended early' : substr( $said, 0, 500 ) ), 2 );
		}
	}
);

require $pressroom_root . '/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';

/** What is to be done about a network: makes or moves a wished one, and refuses to lose one. */
function pressroom_install_network( array $wish, bool $is_new ): array {
	try {
		$found = Pressroom_Install_Network::found();
		if ( null === ( $wish['network'] ?? null ) ) {
			if ( null !== $found ) {
				throw new RuntimeException( "the database holds a network of $found: write `network = \"$found\"` in the site's configuration" );
			}
			return array();
		}
		$done = Pressroom_Install_Network::settle( $wish, $is_new );
	} catch ( RuntimeException $error ) {
		ob_end_clean();
		define( 'PRESSROOM_INSTALL_ENDED', true );
		pressroom_install_end( array( 'error' => $error->getMessage() ), 2 );
	}
	if ( 'there' !== $done ) {
		// Neither the object cache nor stored pages know of it.
		wp_cache_flush();
		Pressroom_Purge::everything();
	}
	return array( 'network' => $done );
}

if ( is_blog_installed() ) {
	$pressroom_done = pressroom_install_network( $pressroom_wish, false );
	ob_end_clean();
	define( 'PRESSROOM_INSTALL_ENDED', true );
	pressroom_install_end( array( 'installed' => false, 'reason' => 'already installed' ) + $pressroom_done, 0 );
}

// Core would ask the site over HTTP which addresses work; nobody serves it yet, and the edge makes them all work.
$pressroom_permalinks = static function () {
	return '/%postname%/';
};
add_filter( 'pre_option_permalink_structure', $pressroom_permalinks );
$pressroom_result = wp_install(
	$pressroom_wish['title'],
	$pressroom_wish['user'],
	$pressroom_wish['email'],
	true,
	'',
	wp_slash( $pressroom_wish['password'] ),
	(string) ( $pressroom_wish['locale'] ?? '' )
);
if ( ! is_blog_installed() ) {
	define( 'PRESSROOM_INSTALL_ENDED', true );
	pressroom_install_end( array( 'error' => 'WordPress made no tables: ' . $GLOBALS['wpdb']->last_error ), 2 );
}

remove_filter( 'pre_option_permalink_structure', $pressroom_permalinks );
$GLOBALS['wp_rewrite']->set_permalink_structure( '/%postname%/' );
update_option( 'rewrite_rules', '' );
$pressroom_done = pressroom_install_network( $pressroom_wish, true );
// An installation that began without a cache must not leave one behind.
wp_cache_flush();

ob_end_clean();
define( 'PRESSROOM_INSTALL_ENDED', true );
pressroom_install_end(
	array(
		'installed' => true,
		'user'      => $pressroom_wish['user'],
		'user_id'   => (int) $pressroom_result['user_id'],
		'url'       => get_option( 'home' ),
	) + $pressroom_done,
	0
);
