<?php
/**
 * The last word of a request: after its last byte, behind every other shutdown function.
 *
 * Functions that are registered while others run come last, so this one registers itself again until nobody is behind it.
 * For a page that may be stored the FastCGI request is finished here: `fastcgi_finish_request()` says whether somebody
 * had finished it before, in the middle of the page.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_End {

	/** @var int How often to step back behind functions that others register. */
	private static $rounds = 3;

	public static function watch(): void {
		register_shutdown_function( array( __CLASS__, 'step_back' ) );
	}

	public static function step_back(): void {
		if ( self::$rounds-- > 0 ) {
			register_shutdown_function( array( __CLASS__, 'step_back' ) );
			return;
		}
		self::speak();
	}

	private static function speak(): void {
		Pressroom_Direct::settle();
		Pressroom_Purge::send( true );
		$affirmation = null;
		$because     = null;
		if ( Pressroom_Edge::is_canonical() ) {
			list( $affirmation, $because ) = self::verdict();
		}
		wp_cache_close();
		$total = Pressroom_Purge::total();
		if ( null !== Pressroom_Edge::token() ) {
			Pressroom_Edge::done( $affirmation, $because, $total );
		} elseif ( null !== $total ) {
			Pressroom_Purge::repeat( $total );
		}
	}

	/** @return array{0:array|null,1:string|null} */
	private static function verdict(): array {
		$because = Pressroom_Page::objection();
		if ( null !== $because ) {
			return array( null, $because );
		}
		while ( ob_get_level() > 0 && @ob_end_flush() ) {
			continue;
		}
		$tags     = Pressroom_Tags::all();
		$lifetime = Pressroom_Page::lifetime();
		if ( $lifetime < 1 ) {
			return array( null, 'a nonce in it expires too soon' );
		}
		if ( function_exists( 'fastcgi_finish_request' ) && ! fastcgi_finish_request() ) {
			return array( null, 'the request was finished before its end' );
		}
		// Buffers and destructors of output may have sent headers since.
		$because = Pressroom_Page::objection();
		return null === $because ? array( array( 'ttl' => $lifetime, 'tags' => $tags ), null ) : array( null, $because );
	}
}
