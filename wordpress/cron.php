<?php
/**
 * WordPress's scheduled events, run by Pressroom's scheduler on the command line: `php cron.php [ROOT] --due|--run
 * [--interrupted=again|report] [--blog=URL]`.
 *
 * `--due` looks; `--run` runs what is due, one event after another, as `wp-cron.php` does: each is rescheduled and unscheduled
 * before it runs, so an event that dies costs itself only and the next run goes on behind it. Both print one JSON object:
 * {"due": how many are due now, "next": unix time of the next one or null, "ran": how many ran, "late_ms": the latest of them,
 * "again": events that were run again, "reported": events that were cut off and are not run again}.
 *
 * In a network a run is of one blog, named by its URL (default: the main one). Blogs do not share a process: each has plugins of
 * its own, and an event whose plugin is not loaded would be taken off the schedule with nobody to handle it.
 *
 * Always: no event runs twice at once, on any machine: a run holds the database's lock of its blog, which ends with its connection.
 * None is forgotten: before an event leaves the schedule it is written down beside it, and struck out when it has ended. Who has the
 * lock and finds one written down knows that its runner died inside.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

if ( 'cli' !== PHP_SAPI ) {
	exit( 1 );
}

$pressroom_arguments = array_slice( $argv, 1 );
$pressroom_run       = in_array( '--run', $pressroom_arguments, true );
$pressroom_again     = ! in_array( '--interrupted=report', $pressroom_arguments, true );
$pressroom_blog      = substr( (string) current( preg_grep( '/^--blog=/', $pressroom_arguments ) ), strlen( '--blog=' ) );
$pressroom_root      = rtrim( current( preg_grep( '/^--/', $pressroom_arguments, PREG_GREP_INVERT ) ) ?: __DIR__, '/' );

ignore_user_abort( true );
define( 'DOING_CRON', true );
require_once __DIR__ . '/request.php';
pressroom_request( $pressroom_root, '/wp-cron.php', $pressroom_blog );
require $pressroom_root . '/wp-load.php';

/** What is due, and when the next event is. */
function pressroom_cron_look(): array {
	$due  = 0;
	$next = null;
	$now  = microtime( true );
	foreach ( _get_cron_array() ?: array() as $timestamp => $hooks ) {
		foreach ( $hooks as $events ) {
			if ( $timestamp <= $now ) {
				$due += count( $events );
			}
			$next = null === $next ? (int) $timestamp : min( $next, (int) $timestamp );
		}
	}
	return array( $due, $next );
}

/** The event under way, as it is written down in the blog's options: `pressroom_cron_running`. */
final class Pressroom_Event {

	/** An event that its runner did not survive so often is not run again: it may be the reason. */
	const MOST_TIMES = 2;

	/** @var string|null What this process has written down. */
	private static $written = null;

	/** Whether the database took it. */
	public static function begin( int $timestamp, string $hook, array $event, int $times = 1 ): bool {
		global $wpdb;
		// A copy of the site has a database of its own, and nothing to do with what ran in this one.
		$site          = DB_NAME;
		$began         = microtime( true );
		self::$written = base64_encode( serialize( compact( 'site', 'timestamp', 'hook', 'event', 'times', 'began' ) ) );
		return self::write( $wpdb->prepare( "REPLACE INTO $wpdb->options (option_name, option_value, autoload) VALUES ('pressroom_cron_running', %s, 'no')", self::$written ) );
	}

	/** Visitors see nothing of this row: the write is no change that pages were to be purged for. */
	private static function write( string $sql ): bool {
		global $wpdb;
		$watch = array( 'Pressroom_Direct', 'before' );
		remove_filter( 'query', $watch, PHP_INT_MAX );
		$is_written = false !== $wpdb->query( $sql );
		add_filter( 'query', $watch, PHP_INT_MAX );
		return $is_written;
	}

	/** Strikes out what this process wrote, and nothing that another has written since. */
	public static function end(): void {
		global $wpdb;
		if ( null !== self::$written ) {
			self::write( $wpdb->prepare( "DELETE FROM $wpdb->options WHERE option_name = 'pressroom_cron_running' AND option_value = %s", self::$written ) );
			self::$written = null;
		}
	}

	/** The event that a runner died inside, if there is one. The lock is ours, so nobody is inside. */
	public static function interrupted(): ?array {
		global $wpdb;
		$written = $wpdb->get_var( "SELECT option_value FROM $wpdb->options WHERE option_name = 'pressroom_cron_running'" );
		if ( null === $written ) {
			return null;
		}
		self::$written = $written;
		$read          = @unserialize( base64_decode( $written ) );
		if ( is_array( $read ) && DB_NAME === $read['site'] ) {
			$crons = _get_cron_array() ?: array();
			$key   = md5( serialize( $read['event']['args'] ) );
			// Its runner died before it was taken off the schedule: it did not begin.
			if ( ! isset( $crons[ $read['timestamp'] ][ $read['hook'] ][ $key ] ) ) {
				return $read;
			}
		}
		self::end();
		return null;
	}

	/** An event that ends the process has ended, however. */
	public static function end_with_the_process(): void {
		if ( null === self::$written ) {
			return;
		}
		$read  = unserialize( base64_decode( self::$written ) );
		$error = error_get_last();
		if ( $error && $error['type'] & ( E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR | E_RECOVERABLE_ERROR ) ) {
			error_log( "pressroom: event {$read['hook']} died: " . strtok( $error['message'], "\n" ) );
		}
		self::end();
	}
}

/** Runs what is due in the current blog, for a minute; the scheduler comes again. */
function pressroom_cron_run( bool $again ): array {
	$said  = array(
		'ran'      => 0,
		'late_ms'  => 0,
		'again'    => array(),
		'reported' => array(),
	);
	$until = microtime( true ) + 60;
	// What WordPress and others ask when they want to know whether events are being run.
	set_transient( 'doing_cron', sprintf( '%.22F', microtime( true ) ), WP_CRON_LOCK_TIMEOUT );
	register_shutdown_function(
		static function () {
			Pressroom_Event::end_with_the_process();
			delete_transient( 'doing_cron' );
		}
	);
	// The schedule as it is now: another run may have worked on it since this process read its options.
	Pressroom_Cron::read_again();
	$cut = Pressroom_Event::interrupted();
	if ( $cut ) {
		$runs_again                                  = $again && $cut['times'] < Pressroom_Event::MOST_TIMES;
		$said[ $runs_again ? 'again' : 'reported' ][] = array(
			'hook'  => $cut['hook'],
			'due'   => $cut['timestamp'],
			'began' => (int) $cut['began'],
		);
		if ( $runs_again ) {
			if ( ! Pressroom_Event::begin( $cut['timestamp'], $cut['hook'], $cut['event'], $cut['times'] + 1 ) ) {
				return $said;
			}
			do_action_ref_array( $cut['hook'], $cut['event']['args'] );
		}
		Pressroom_Event::end();
		// This is told before anything else can go wrong; the scheduler comes again at once.
		return $said;
	}
	foreach ( wp_get_ready_cron_jobs() as $timestamp => $hooks ) {
		foreach ( $hooks as $hook => $events ) {
			foreach ( $events as $event ) {
				if ( microtime( true ) > $until || ! Pressroom_Cron::holds() || ! Pressroom_Event::begin( $timestamp, $hook, $event ) ) {
					break 3;
				}
				if ( $event['schedule'] ) {
					$result = wp_reschedule_event( $timestamp, $event['schedule'], $hook, $event['args'], true );
					if ( is_wp_error( $result ) ) {
						error_log( "pressroom: event $hook could not be rescheduled: " . $result->get_error_message() );
						do_action( 'cron_reschedule_event_error', $result, $hook, $event );
					}
				}
				$result = wp_unschedule_event( $timestamp, $hook, $event['args'], true );
				if ( is_wp_error( $result ) ) {
					error_log( "pressroom: event $hook could not be unscheduled: " . $result->get_error_message() );
					do_action( 'cron_unschedule_event_error', $result, $hook, $event );
				}
				$said['late_ms'] = max( $said['late_ms'], (int) ( ( microtime( true ) - $timestamp ) * 1000 ) );
				do_action_ref_array( $hook, $event['args'] );
				Pressroom_Event::end();
				++$said['ran'];
			}
		}
	}
	return $said;
}

/** Runs what is due, if so wished, and looks what there is then. */
function pressroom_cron_visit( bool $run, bool $again ): array {
	$said               = $run ? pressroom_cron_run( $again ) : array( 'ran' => 0 );
	list( $due, $next ) = pressroom_cron_look();
	return compact( 'due', 'next' ) + $said;
}

if ( ! is_blog_installed() ) {
	$pressroom_result = array(
		'due'  => 0,
		'next' => null,
		'ran'  => 0,
	);
} else {
	// Where another run is under way, this one only looks.
	$pressroom_run    = $pressroom_run && Pressroom_Cron::hold();
	$pressroom_result = pressroom_cron_visit( $pressroom_run, $pressroom_again );
}
// This process cannot write code: the author instance will.
$pressroom_result['updates'] = Pressroom_Updates::are_due();
fwrite( STDOUT, json_encode( $pressroom_result ) . "\n" );
