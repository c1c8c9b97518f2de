<?php
/**
 * The readiness probe: proves that PHP, WordPress and the database work, before any other plugin can interfere.
 *
 * The edge asks with the FastCGI parameter PRESSROOM_READY, which no client can send. (Maintenance mode comes before must-use
 * plugins; the release's wp-config.php switches it off for the probe.)
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Ready {

	public static function answer_if_asked(): void {
		if ( '1' !== ( $_SERVER['PRESSROOM_READY'] ?? '' ) ) {
			return;
		}
		global $wpdb;
		$wpdb->suppress_errors();
		$reason = null;
		if ( '1' !== $wpdb->get_var( 'SELECT 1' ) ) {
			$reason = 'the database does not answer: ' . $wpdb->last_error;
		} elseif ( null === $wpdb->get_var( "SELECT option_id FROM $wpdb->options LIMIT 1" ) ) {
			$reason = 'the options table cannot be read: ' . $wpdb->last_error;
		}
		if ( ! headers_sent() ) {
			http_response_code( null === $reason ? 200 : 503 );
			header( 'Content-Type: text/plain; charset=utf-8' );
			header( 'Cache-Control: no-store' );
		}
		echo null === $reason ? "ready\n" : "not ready: $reason\n";
		exit;
	}
}
