<?php
/**
 * The request's purges: sent as soon as the database has the change, in few messages, and summed up at the end.
 *
 * The first goes at once; more go together, at most every 200 ms; more than 500 tags become "everything". While an SQL
 * transaction is open nothing is sent: a page rendered before COMMIT would be called fresh and show the old state.
 *
 * Always: what no edge confirmed is noted on disk, and the next request of this site repeats it as "everything".
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Purge {

	const MAX_TAGS = 500;
	const PAUSE    = 0.2;

	/** @var array<string,true> Not sent yet. */
	private static $waiting = array();

	/** @var array<string,true> Everything this request purged. */
	private static $total = array();

	/** @var float When the last message went. */
	private static $sent_at = 0.0;

	/** @var bool */
	private static $in_transaction = false;

	/** Stands for everything of the site, among tags. */
	const ALL = '*';

	/** Purges pages that carry one of these tags. Tags are those of the current blog. */
	public static function tags( array $tags ): void {
		foreach ( $tags as $tag ) {
			$tag                   = self::name( $tag );
			self::$waiting[ $tag ] = true;
			self::$total[ $tag ]   = true;
		}
		self::send();
	}

	/** Purges everything of the current blog; without a network, of the site. */
	public static function blog(): void {
		is_multisite() ? self::tags( array( 'site' ) ) : self::everything();
	}

	/** Purges everything of the site, that is, of the whole network. */
	public static function everything(): void {
		self::$waiting[ self::ALL ] = true;
		self::$total[ self::ALL ]   = true;
		self::send();
	}

	/** A tag as the edge knows it: in a network each blog has its own. */
	public static function name( string $tag, ?int $blog = null ): string {
		return is_multisite() ? ( $blog ?? get_current_blog_id() ) . ':' . $tag : $tag;
	}

	/** Told by the watcher of statements. */
	public static function transaction( string $event ): void {
		self::$in_transaction = 'begin' === $event;
	}

	/** All of this request, or null. */
	public static function total(): ?array {
		return self::message( self::$total );
	}

	/** Sends what waits, if it is time; $now: whatever the time. */
	public static function send( bool $now = false ): void {
		if ( array() === self::$waiting || ( self::$in_transaction && ! $now ) ) {
			return;
		}
		if ( ! $now && microtime( true ) - self::$sent_at < self::PAUSE ) {
			return;
		}
		$message       = self::message( self::$waiting );
		self::$waiting = array();
		self::$sent_at = microtime( true );
		if ( ! Pressroom_Edge::purge( $message ) ) {
			self::remember();
		}
	}

	/** Says it once more, where there is no last word to say it in. */
	public static function repeat( array $total ): void {
		if ( ! Pressroom_Edge::purge( $total ) ) {
			self::remember();
		}
	}

	/** What the last requests could not deliver. */
	public static function catch_up(): void {
		$path = self::path();
		if ( '' === $path || ! file_exists( $path ) ) {
			return;
		}
		// Away first: what is noted from now on is new. Whoever dies in between leaves the claim to be found.
		$claim = $path . '.claimed';
		if ( @rename( $path, $claim ) || file_exists( $claim ) ) {
			if ( Pressroom_Edge::purge( array( 'all' => true ) ) ) {
				@unlink( $claim );
			} else {
				self::remember();
			}
		}
	}

	private static function remember(): void {
		$path = self::path();
		if ( '' === $path || ! getenv( 'PRESSROOM_AFFIRM' ) ) {
			return;
		}
		if ( ! @touch( $path ) && ! ( @mkdir( dirname( $path ), 0700, true ) && @touch( $path ) ) ) {
			error_log( "pressroom: a purge was not confirmed, and could not be noted in $path" );
		}
	}

	private static function path(): string {
		if ( defined( 'PRESSROOM_TMP' ) ) {
			return PRESSROOM_TMP . '/purge-everything';
		}
		$config = getenv( 'PRESSROOM_CONFIG' );
		return $config ? dirname( $config, 2 ) . '/tmp/purge-everything' : '';
	}

	/** @param array<string,true> $tags */
	private static function message( array $tags ): ?array {
		if ( array() === $tags ) {
			return null;
		}
		if ( isset( $tags[ self::ALL ] ) || count( $tags ) > self::MAX_TAGS ) {
			return array( 'all' => true );
		}
		// Pages whose dependencies are not known change with everything.
		$tags = array_map( 'strval', array_keys( $tags ) );
		foreach ( array_unique( array_map( static function ( $tag ) {
			return preg_match( '/^\d+:/', $tag, $match ) ? $match[0] : '';
		}, $tags ) ) as $blog ) {
			$tags[] = $blog . 'any';
		}
		return array( 'tags' => array_values( array_unique( $tags ) ) );
	}
}
