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

	/** @var resource|bool|null This machine's lock; true where there is no place for one. */
	private static $file = null;

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
		if ( ! self::lock_this_machine() ) {
			return array();
		}
		$held = wp_cache_get( 'doing_cron', 'transient', true );
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

	/** One run of a blog at a time on this machine, also while Redis is away. Held until the process ends. */
	public static function lock_this_machine(): bool {
		if ( null === self::$file ) {
			$config     = getenv( 'PRESSROOM_CONFIG' );
			$name       = is_multisite() ? 'cron-' . get_current_blog_id() . '.lock' : 'cron.lock';
			self::$file = $config ? @fopen( dirname( $config, 2 ) . "/tmp/$name", 'c' ) : false;
			self::$file = self::$file ? self::$file : true;
		}
		return true === self::$file || flock( self::$file, LOCK_EX | LOCK_NB );
	}

	/**
	 * Reads the schedule from the database: not as it was when this process began, nor as a cache has it that the last run could
	 * not reach. An event that runs twice may send a mail twice.
	 */
	public static function read_again(): void {
		wp_cache_delete_multiple( array( 'alloptions', 'notoptions', 'cron' ), 'options' );
		wp_load_alloptions();
	}
}
