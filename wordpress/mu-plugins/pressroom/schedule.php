<?php
/**
 * A change of the schedule changes what it means to change, and nothing else of it.
 *
 * WordPress keeps all scheduled events in one option. Whoever changes one event writes the whole list as it was when the request
 * began, so what others scheduled meanwhile is forgotten: a scheduled post that a visitor's plugin removes from the list is never
 * published. Here the change is found (what the request knew, against what it wants to store) and made to the list as the database
 * has it now, under a lock of the database.
 *
 * Always: an event that nobody unscheduled stays. Two requests that add the same event at the same time add one, as WordPress
 * itself would have had it by accident.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Schedule {

	/**
	 * Seconds for the lock: a node that died with it loses it after three. Without it the change is still made to the newest list, which
	 * leaves some milliseconds to chance.
	 */
	const PATIENCE = 4;

	/** @var string The lock that is held. */
	private static $lock = '';

	public static function keep_whole(): void {
		add_filter( 'pre_update_option_cron', array( __CLASS__, 'amend' ), PHP_INT_MAX, 2 );
		add_action( 'update_option_cron', array( __CLASS__, 'release' ), PHP_INT_MIN, 0 );
	}

	/** Filter `pre_update_option_cron`: what is to be stored instead. */
	public static function amend( $wanted, $known ) {
		global $wpdb;
		if ( ! is_array( $wanted ) || ! is_array( $known ) || $wanted === $known ) {
			return $wanted;
		}
		self::acquire();
		$stored  = $wpdb->get_var( "SELECT option_value FROM $wpdb->options WHERE option_name = 'cron'" );
		$now     = maybe_unserialize( $stored );
		$amended = is_array( $now ) ? self::merged( $known, $wanted, $now ) : $wanted;
		if ( ! is_array( $now ) || maybe_serialize( $amended ) === $stored ) {
			self::release(); // Nothing will be written, or a new row.
		}
		return $amended;
	}

	/**
	 * The list `$now` with what leads from `$known` to `$wanted`.
	 *
	 * @param array $known  The list as the request knew it: time => hook => key of the arguments => event; and `version`.
	 * @param array $wanted As it wants it.
	 * @param array $now    As it is.
	 */
	public static function merged( array $known, array $wanted, array $now ): array {
		list( $known, $wanted ) = array( self::flat( $known ), self::flat( $wanted ) );
		$before                 = self::flat( $now );
		foreach ( array_diff_key( $known, $wanted ) as list( $time, $hook, $key ) ) {
			unset( $now[ $time ][ $hook ][ $key ] );
			if ( empty( $now[ $time ][ $hook ] ) ) {
				unset( $now[ $time ][ $hook ] );
			}
			if ( empty( $now[ $time ] ) ) {
				unset( $now[ $time ] );
			}
		}
		$others = array_diff_key( $before, $known );
		foreach ( $wanted as $name => $entry ) {
			list( $time, $hook, $key, $event ) = $entry;
			$is_new                            = ! isset( $known[ $name ] );
			if ( $is_new ? ! self::has_like( $others, $entry ) : $known[ $name ][3] !== $event ) {
				$now[ $time ][ $hook ][ $key ] = $event;
			}
		}
		uksort( $now, 'strnatcasecmp' );
		return $now;
	}

	/** Whether somebody else just added the same: an event that comes again, or one within ten minutes, as WordPress judges. */
	private static function has_like( array $others, array $entry ): bool {
		list( $time, $hook, $key, $event ) = $entry;
		foreach ( $others as list( $their_time, $their_hook, $their_key ) ) {
			$is_same = $their_hook === $hook && $their_key === $key;
			if ( $is_same && ( ! empty( $event['schedule'] ) || abs( $their_time - $time ) < 10 * MINUTE_IN_SECONDS ) ) {
				return true;
			}
		}
		return false;
	}

	/** @return array<string,array{0:int,1:string,2:string,3:array}> Every event by a name that only it has. */
	private static function flat( array $list ): array {
		$flat = array();
		foreach ( $list as $time => $hooks ) {
			foreach ( is_array( $hooks ) ? $hooks : array() as $hook => $events ) {
				foreach ( $events as $key => $event ) {
					$flat[ "$time $key $hook" ] = array( (int) $time, (string) $hook, (string) $key, $event );
				}
			}
		}
		return $flat;
	}

	private static function acquire(): void {
		global $wpdb;
		if ( '' !== self::$lock ) {
			return;
		}
		$name = 'cron ' . md5( DB_NAME . ' ' . $wpdb->options );
		if ( '1' === $wpdb->get_var( $wpdb->prepare( 'SELECT GET_LOCK(%s, %d)', $name, self::PATIENCE ) ) ) {
			self::$lock = $name;
		}
	}

	/** Action `update_option_cron`: it is stored. A request that ends earlier lets go with its connection. */
	public static function release(): void {
		global $wpdb;
		if ( '' !== self::$lock ) {
			$wpdb->get_var( $wpdb->prepare( 'SELECT RELEASE_LOCK(%s)', self::$lock ) );
			self::$lock = '';
		}
	}
}
