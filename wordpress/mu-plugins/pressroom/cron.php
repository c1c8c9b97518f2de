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

	/** @var wpdb|null A connection of its own: the lock ends with it, whatever becomes of this process or its machine. */
	private static $holder = null;

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
		if ( ! self::hold() ) {
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

	/**
	 * One run of a blog at a time on all machines, also while Redis is away: the database's own lock, held until the process ends.
	 * Pressroom's scheduler asks for it by the same name.
	 */
	public static function hold(): bool {
		if ( null === self::$holder ) {
			self::$holder = new wpdb( DB_USER, DB_PASSWORD, DB_NAME, DB_HOST );
			// An event may take its time; the lock's connection says nothing meanwhile.
			self::$holder->query( 'SET SESSION wait_timeout = 604800' );
		}
		return '1' === self::$holder->get_var( self::$holder->prepare( 'SELECT GET_LOCK(%s, 0)', self::name() ) );
	}

	/** Whether this process still has the lock: the database may have been started anew meanwhile. */
	public static function holds(): bool {
		return '1' === self::$holder->get_var( self::$holder->prepare( 'SELECT IS_USED_LOCK(%s) = CONNECTION_ID()', self::name() ) );
	}

	private static function name(): string {
		return 'cron ' . DB_NAME . ' ' . get_current_blog_id();
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
