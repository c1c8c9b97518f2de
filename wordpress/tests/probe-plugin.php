<?php
/**
 * Lets the tests misbehave inside a request: `?probe=NAME`, and reports what the request cost in a file.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

add_action( 'init', static function () {
	switch ( $_GET['probe'] ?? '' ) {
		case 'cookie':
			setcookie( 'cart', '1' );
			break;
		case 'session':
			session_start();
			break;
		case 'closed-session':
			session_start();
			session_write_close();
			break;
		case 'donotcache':
			define( 'DONOTCACHEPAGE', true );
			break;
		case 'exit':
			exit( 'early' );
		case 'user':
			wp_set_current_user( 1 );
			break;
		case 'vary':
			header( 'Vary: Cookie' );
			break;
		case 'private':
			header( 'Cache-Control: private' );
			break;
		case 'die':
			wp_die( 'no' );
			break;
		case 'option':
			update_option( 'views_counter', microtime() );
			break;
		case 'short-nonce':
			add_filter( 'nonce_life', static function () {
				return 600;
			} );
			wp_create_nonce( 'x' );
			break;
		case 'nonce':
			add_filter( 'pressroom_ttl', static function () {
				return 10 * DAY_IN_SECONDS;
			} );
			wp_create_nonce( 'x' );
			break;
	}
} );
add_action( 'loop_start', static function () {
	switch ( $_GET['probe'] ?? '' ) {
		case 'exit-inside':
			exit( 'inside' );
		case 'finish':
			fastcgi_finish_request();
			break;
		case 'flush':
			while ( ob_get_level() ) {
				ob_end_flush();
			}
			flush();
			break;
		case 'fatal':
			pressroom_no_such_function();
	}
} );
add_action( 'wp_footer', static function () {
	if ( 'fatal-late' === ( $_GET['probe'] ?? '' ) ) {
		add_action( 'shutdown', static function () {
			pressroom_no_such_function();
		} );
	}
} );
register_shutdown_function( static function () {
	register_shutdown_function( static function () {
		global $wp_object_cache, $wpdb;
		file_put_contents( getenv( 'PRESSROOM_CONFIG' ) . '.cost', json_encode( array(
			'trips'   => $wp_object_cache->round_trips(),
			'up'      => $wp_object_cache->is_up(),
			'queries' => $wpdb->num_queries,
			'seconds' => microtime( true ) - $_SERVER['REQUEST_TIME_FLOAT'],
		) ) );
	} );
} );
