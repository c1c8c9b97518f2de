<?php
/**
 * WordPress's scheduled events, run by Pressroom's scheduler on the command line: `php cron.php [ROOT] --due|--run [--blog=URL]`.
 *
 * `--due` looks; `--run` runs what is due, one event after another, as `wp-cron.php` does: each is rescheduled and unscheduled
 * before it runs, so an event that dies costs itself only and the next run goes on behind it. Both print one JSON object:
 * {"due": how many are due now, "next": unix time of the next one or null, "ran": how many ran}.
 *
 * In a network a run is of one blog, named by its URL (default: the main one). Blogs do not share a process: each has plugins of
 * its own, and an event whose plugin is not loaded would be taken off the schedule with nobody to handle it.
 *
 * Always: no event runs twice at once. The lock `doing_cron`, which `wp-cron.php` respects too, is taken by an atomic add, and on
 * this machine a file lock holds also while Redis is away.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

if ( 'cli' !== PHP_SAPI ) {
	exit( 1 );
}

$pressroom_arguments = array_slice( $argv, 1 );
$pressroom_run       = in_array( '--run', $pressroom_arguments, true );
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

/** Runs what is due in the current blog. */
function pressroom_cron_run(): int {
	$key = sprintf( '%.22F', microtime( true ) );
	$old = get_transient( 'doing_cron' );
	if ( $old && $old + WP_CRON_LOCK_TIMEOUT < microtime( true ) ) {
		delete_transient( 'doing_cron' );
	}
	if ( wp_using_ext_object_cache() ) {
		if ( ! wp_cache_add( 'doing_cron', $key, 'transient', WP_CRON_LOCK_TIMEOUT ) ) {
			return 0;
		}
	} elseif ( $old && $old + WP_CRON_LOCK_TIMEOUT > microtime( true ) ) {
		return 0;
	} else {
		set_transient( 'doing_cron', $key, WP_CRON_LOCK_TIMEOUT );
	}
	$mine = static function () use ( $key ) {
		return ( wp_using_ext_object_cache() ? wp_cache_get( 'doing_cron', 'transient', true ) : get_transient( 'doing_cron' ) ) === $key;
	};
	// An event that ends the process must not hold the lock for its time-out.
	register_shutdown_function(
		static function () use ( $mine ) {
			if ( $mine() ) {
				delete_transient( 'doing_cron' );
			}
		}
	);
	// The schedule as it is now: another run may have worked on it since this process read its options.
	Pressroom_Cron::read_again();
	$ran = 0;
	foreach ( wp_get_ready_cron_jobs() as $timestamp => $hooks ) {
		foreach ( $hooks as $hook => $events ) {
			foreach ( $events as $event ) {
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
				do_action_ref_array( $hook, $event['args'] );
				++$ran;
				if ( ! $mine() ) {
					break 3; // It took longer than the lock, and somebody else has it now.
				}
			}
		}
	}
	if ( $mine() ) {
		delete_transient( 'doing_cron' );
	}
	return $ran;
}

/** Runs what is due, if so wished, and looks what there is then. */
function pressroom_cron_visit( bool $run ): array {
	$ran                = $run ? pressroom_cron_run() : 0;
	list( $due, $next ) = pressroom_cron_look();
	return compact( 'due', 'next', 'ran' );
}

if ( ! is_blog_installed() ) {
	$pressroom_result = array(
		'due'  => 0,
		'next' => null,
		'ran'  => 0,
	);
} else {
	// Where another run is under way, this one only looks.
	$pressroom_run    = $pressroom_run && Pressroom_Cron::lock_this_machine();
	$pressroom_result = pressroom_cron_visit( $pressroom_run );
}
// This process cannot write code: the author instance will.
$pressroom_result['updates'] = Pressroom_Updates::are_due();
fwrite( STDOUT, json_encode( $pressroom_result ) . "\n" );
