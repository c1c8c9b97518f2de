<?php
/**
 * Runs the tests; run.sh has prepared the ground. Usage: php run.php [FILTER]
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

require __DIR__ . '/lab.php';
error_reporting( E_ALL );

$files = array( 'install', 'statement', 'cache', 'outage', 'race', 'cost', 'sessions', 'affirmation', 'purge', 'cron', 'rewrite', 'network' );
foreach ( $files as $file ) { // The files share this scope, as templates do.
	if ( 'install' === $file || ! isset( $argv[1] ) || false !== strpos( $file, $argv[1] ) ) {
		$started[ $file ] = microtime( true );
		require __DIR__ . "/$file.php";
		printf( "%-12s %.1f s\n", $file, microtime( true ) - $started[ $file ] );
	}
}
printf( "%d passed, %d failed\n", Lab::$passed, Lab::$failed );
exit( Lab::$failed ? 1 : 0 );
