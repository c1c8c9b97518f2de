<?php
/**
 * WordPress asks wordpress.org for updates during a click in wp-admin when it has forgotten the last answer.
 *
 * It keeps that answer in the object cache. While Redis is away it would ask again on every click, and each click would wait for
 * an answer from outside: seconds, where the cache's own failure costs milliseconds. The scheduled checks twice a day remain.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Updates {

	public static function watch(): void {
		add_action( 'admin_init', array( __CLASS__, 'spare_clicks' ), 0 );
	}

	/** Action `admin_init`, before core's own. */
	public static function spare_clicks(): void {
		$cache = $GLOBALS['wp_object_cache'] ?? null;
		if ( ! is_object( $cache ) || ! method_exists( $cache, 'is_up' ) || $cache->is_up() ) {
			return;
		}
		foreach ( array( '_maybe_update_core', '_maybe_update_plugins', '_maybe_update_themes' ) as $check ) {
			remove_action( 'admin_init', $check );
		}
	}
}
