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

	/** @var bool */
	private static $are_due = false;

	public static function watch(): void {
		add_action( 'admin_init', array( __CLASS__, 'spare_clicks' ), 0 );
		if ( 'cli' === PHP_SAPI ) {
			// The scheduler's PHP cannot write code. It says that WordPress wants to, and the author instance is asked.
			add_action( 'wp_maybe_auto_update', array( __CLASS__, 'leave_to_the_author' ), 0 );
			add_filter( 'automatic_updater_disabled', '__return_true' );
		}
	}

	/** Action `wp_maybe_auto_update`, before core's own. */
	public static function leave_to_the_author(): void {
		remove_action( 'wp_maybe_auto_update', 'wp_maybe_auto_update' );
		self::$are_due = true;
	}

	/** Whether WordPress wanted to update itself, its plugins or its themes in this process. */
	public static function are_due(): bool {
		return self::$are_due && ! ( defined( 'DISALLOW_FILE_MODS' ) && DISALLOW_FILE_MODS );
	}

	/** On the author instance: does what WordPress does when that event is due, and says so. */
	public static function update_automatically(): void {
		add_action(
			'wp_loaded',
			static function () {
				define( 'DOING_CRON', true );
				set_time_limit( 0 );
				do_action( 'wp_maybe_auto_update' );
				header( 'Content-Type: text/plain; charset=utf-8' );
				echo "done\n";
				exit;
			}
		);
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
