<?php
/**
 * Scheduled events belong to Pressroom's scheduler, which runs them on time also without visitors.
 *
 * So a page view spawns nothing. `DISABLE_WP_CRON` stays undefined: plugins and Site Health read it as "cron is broken".
 * `/wp-cron.php` still works for whoever calls it.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Cron {

	/** @var bool */
	private static $locked = false;

	public static function leave_to_the_scheduler(): void {
		remove_action( 'init', 'wp_cron' );
		remove_action( 'wp_loaded', '_wp_cron', 20 );
		add_filter( 'pre_get_ready_cron_jobs', array( __CLASS__, 'lock' ) );
	}

	/**
	 * Filter `pre_get_ready_cron_jobs`: `/wp-cron.php` reads its list before it looks at the lock, and takes the lock in two steps,
	 * so two calls can run an event twice. Here the lock comes first, atomically, and the list is read behind it.
	 */
	public static function lock( $jobs ) {
		if ( self::$locked || ! wp_doing_cron() || 'wp-cron.php' !== basename( $_SERVER['SCRIPT_FILENAME'] ?? '' ) || ! wp_using_ext_object_cache() ) {
			return $jobs;
		}
		self::$locked = true;
		$held         = wp_cache_get( 'doing_cron', 'transient', true );
		if ( $held && $held === ( $_GET['doing_wp_cron'] ?? null ) ) {
			self::read_again();
			return $jobs;
		}
		$key = sprintf( '%.22F', microtime( true ) );
		if ( ! wp_cache_add( 'doing_cron', $key, 'transient', WP_CRON_LOCK_TIMEOUT ) ) {
			return array();
		}
		$GLOBALS['doing_wp_cron'] = $key;
		self::read_again();
		$ready = _get_cron_array() ?: array();
		if ( ! $ready || min( array_keys( $ready ) ) > microtime( true ) ) {
			delete_transient( 'doing_cron' );
			return array();
		}
		return $jobs;
	}

	/** Reads the schedule as it is now, not as it was when this process began. */
	public static function read_again(): void {
		wp_load_alloptions( true );
		wp_cache_get( 'cron', 'options', true );
	}
}
