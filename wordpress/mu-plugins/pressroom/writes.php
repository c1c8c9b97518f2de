<?php
/**
 * Notes writes that the system refused, with the plugin that tried, for `pressroom site writes`.
 *
 * Code is read-only, so a plugin that writes beside it gets a warning of PHP, which it often suppresses. Only then this runs: the
 * path is in the warning or among the arguments of the call, the plugin on the way there. Nothing is shown in wp-admin.
 *
 * Always: each path is noted once an hour at most, the list stays small, and nothing here throws or prints.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Writes {

	/** What the system says. */
	const REFUSALS = array( 'Read-only file system', 'Permission denied' );

	/** Functions that write; the path is the argument with this number. */
	const WRITERS = array( 'fopen' => 0, 'file_put_contents' => 0, 'mkdir' => 0, 'touch' => 0, 'unlink' => 0, 'rmdir' => 0, 'rename' => 1, 'copy' => 1, 'chmod' => 0, 'symlink' => 1, 'link' => 1, 'move_uploaded_file' => 1, 'tempnam' => 0, 'error_log' => 2, 'gzopen' => 0 );

	/** Bytes of the list; then it begins anew. */
	const MOST = 262144;

	/** Lines of one request. */
	const LINES = 20;

	/** @var array<string,true> */
	private static $noted = array();

	/** @var bool */
	private static $is_noting = false;

	public static function watch(): void {
		// The edge rewrites addresses by itself: as with nginx there is no file to ask permissions for.
		add_action( 'load-options-permalink.php', array( __CLASS__, 'spare_htaccess' ) );
		if ( ! Pressroom_Author::is_here() ) {
			set_error_handler( array( __CLASS__, 'hear' ), E_WARNING );
		}
	}

	/** Action `load-options-permalink.php`. */
	public static function spare_htaccess(): void {
		$GLOBALS['is_nginx'] = true;
	}

	/** PHP's own handling goes on in any case. */
	public static function hear( $level, $message ): bool {
		foreach ( self::REFUSALS as $said ) {
			if ( ! self::$is_noting && false !== strpos( (string) $message, $said ) ) {
				self::$is_noting = true;
				try {
					self::note( $said );
				} catch ( Throwable $error ) {
					unset( $error );
				}
				self::$is_noting = false;
				break;
			}
		}
		return false;
	}

	private static function note( string $said ): void {
		$frames = debug_backtrace( 0, 40 );
		$call   = null;
		$by     = '';
		foreach ( $frames as $frame ) {
			$name = $frame['function'] ?? '';
			if ( null === $call && ! isset( $frame['class'] ) && isset( self::WRITERS[ $name ] ) ) {
				$call = $frame;
			}
			if ( null !== $call && '' === $by && preg_match( '#/wp-content/((?:plugins|themes|mu-plugins)/[^/]+)#', $frame['file'] ?? '', $matches ) ) {
				$by = $matches[1];
			}
		}
		$path = null === $call ? null : ( $call['args'][ self::WRITERS[ $call['function'] ] ] ?? null );
		if ( ! is_string( $path ) || '' === $path || ( 'fopen' === $call['function'] && 'r' === ( $call['args'][1] ?? 'r' )[0] && false === strpos( $call['args'][1] ?? 'r', '+' ) ) ) {
			return;
		}
		if ( '/' !== $path[0] ) {
			$path = getcwd() . '/' . $path;
		}
		$path = (string) preg_replace( '#/(?:\./|/)+#', '/', $path );
		$key  = md5( "$path $by" );
		if ( isset( self::$noted[ $key ] ) || count( self::$noted ) >= self::LINES ) {
			return;
		}
		self::$noted[ $key ] = true;
		// Known to all instances, as far as the object cache is there.
		if ( function_exists( 'wp_cache_add' ) && isset( $GLOBALS['wp_object_cache'] ) && ! wp_cache_add( $key, 1, 'pressroom-refused', 3600 ) ) {
			return;
		}
		$line = json_encode(
			array(
				'at'    => time(),
				'path'  => substr( $path, 0, 500 ),
				'tried' => $call['function'],
				'by'    => $by,
				'said'  => $said,
			),
			JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE
		);
		$list = dirname( (string) getenv( 'PRESSROOM_CONFIG' ), 2 ) . '/logs/refused.jsonl';
		$how  = @filesize( $list ) > self::MOST ? LOCK_EX : FILE_APPEND | LOCK_EX;
		@file_put_contents( $list, "$line\n", $how );
	}
}
