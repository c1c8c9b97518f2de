<?php
/**
 * A minimal edge for the tests: listens on the affirmation socket, writes down each line with its time, and answers purges.
 *
 * Usage: php edge.php SOCKET LOG. While the file LOG.silent exists it answers nothing.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

$server  = stream_socket_server( 'unix://' . $argv[1] );
$clients = array();
$pending = array();
$number  = 0;
while ( true ) {
	$read   = array_merge( array( $server ), $clients );
	$write  = null;
	$except = null;
	if ( ! stream_select( $read, $write, $except, null ) ) {
		continue;
	}
	foreach ( $read as $stream ) {
		if ( $stream === $server ) {
			$client                   = stream_socket_accept( $server );
			$clients[ (int) $client ] = $client;
			$pending[ (int) $client ] = '';
			continue;
		}
		$part = fread( $stream, 65536 );
		if ( '' === $part || false === $part ) {
			unset( $clients[ (int) $stream ] );
			fclose( $stream );
			continue;
		}
		$pending[ (int) $stream ] .= $part;
		while ( false !== ( $end = strpos( $pending[ (int) $stream ], "\n" ) ) ) {
			$line                      = substr( $pending[ (int) $stream ], 0, $end );
			$pending[ (int) $stream ] = substr( $pending[ (int) $stream ], $end + 1 );
			file_put_contents( $argv[2], microtime( true ) . ' ' . $line . "\n", FILE_APPEND );
			$word = json_decode( $line, true );
			if ( 'purge' === $word['say'] && ! file_exists( $argv[2] . '.silent' ) ) {
				fwrite( $stream, json_encode( array( 'ok' => true, 'position' => ++$number, 'pages' => 0 ) ) . "\n" );
			}
		}
	}
}
