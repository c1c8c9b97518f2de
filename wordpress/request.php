<?php
/**
 * What a script on the command line looks like to WordPress: a request of the site's own, which nobody reads.
 *
 * WordPress wants to know its host before it can say it. The configuration knows that of the main blog.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

/** Makes the request: for `$script` of the main blog, or of the blog with this URL. Whoever asked reads JSON, so what is printed goes nowhere. */
function pressroom_request( string $root, string $script, string $blog = '' ): void {
	$config = getenv( 'PRESSROOM_CONFIG' ) ?: dirname( $root, 2 ) . '/config/site.php';
	putenv( "PRESSROOM_CONFIG=$config" );
	preg_match( '/define\(\s*[\'"](?:WP|PRESSROOM)_HOME[\'"]\s*,\s*[\'"]([^\'"]+)[\'"]/', (string) @file_get_contents( $config ), $match );
	$url = (array) parse_url( '' === $blog ? ( $match[1] ?? '' ) : $blog );

	$_SERVER['REQUEST_METHOD']  = 'GET';
	$_SERVER['REQUEST_URI']     = rtrim( $url['path'] ?? '', '/' ) . $script;
	$_SERVER['SCRIPT_NAME']     = $script;
	$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
	$_SERVER['REMOTE_ADDR']     = '127.0.0.1';
	$_SERVER['SERVER_NAME']     = $url['host'] ?? 'localhost';
	$_SERVER['HTTP_HOST']       = $_SERVER['SERVER_NAME'] . ( isset( $url['port'] ) ? ':' . $url['port'] : '' );
	if ( 'https' === ( $url['scheme'] ?? '' ) ) {
		$_SERVER['HTTPS'] = 'on';
	}
	ob_start(
		static function () {
			return '';
		},
		4096
	);
}
