<?php
/**
 * Compiles files for opcache's file cache, without running them. Names come in by standard input, a NUL after each.
 *
 * What does not compile is left out; whoever runs it hears of that from PHP itself.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

foreach ( explode( "\0", rtrim( stream_get_contents( STDIN ), "\0" ) ) as $pressroom_file ) {
	try {
		// It declares what it finds. A file that declares the same again must wait for another process.
		@opcache_compile_file( $pressroom_file );
	} catch ( Throwable $error ) {
		continue;
	}
}
