<?php
/**
 * The affirmation socket: what PHP says to its local edge, one JSON object a line.
 *
 * The connection is made at the first word and kept for the request. A word counts as said once the kernel has it: the edge
 * reads it even if it is just being restarted, and even if this process is killed. Only a purge is answered, by a receipt.
 *
 * Always: nothing here throws, prints or waits for long; a save works without an edge.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Edge {

	/** Seconds: to connect, to hand over a line, and for all receipts of a request together. */
	const CONNECT  = 0.05;
	const HANDOVER = 0.1;
	const RECEIPTS = 0.3;

	/** @var resource|false|null Null: not tried yet. */
	private static $socket = null;

	/** @var float */
	private static $patience = self::RECEIPTS;

	/** @var bool */
	private static $said_writing = false;

	/** The token of this request, or null on the command line. */
	public static function token(): ?string {
		$token = $_SERVER['PRESSROOM_TOKEN'] ?? '';
		return '' === $token ? null : $token;
	}

	/** Whether the edge may store this answer. */
	public static function is_canonical(): bool {
		return '1' === ( $_SERVER['PRESSROOM_CANONICAL'] ?? '' ) && null !== self::token();
	}

	/** Says, once, that this request is about to write. */
	public static function writing(): void {
		if ( self::$said_writing ) {
			return;
		}
		self::$said_writing = true;
		if ( null !== self::token() ) {
			self::say( array( 'say' => 'writing', 'request' => self::token() ) );
		}
	}

	/** Says what to purge and waits for the receipt. False: nobody confirmed it. */
	public static function purge( array $purge ): bool {
		$word = array_filter( array( 'say' => 'purge', 'request' => self::token() ) ) + $purge;
		return self::say( $word ) && self::wait_for_receipt();
	}

	/** The last word of a request. */
	public static function done( ?array $affirmation, ?string $because, ?array $purge ): void {
		if ( null === self::token() ) {
			return;
		}
		$word = array(
			'say'         => 'done',
			'request'     => self::token(),
			'affirmation' => $affirmation,
			'because'     => $because,
			'purge'       => $purge,
		);
		self::say( array_filter( $word, static function ( $value ) {
			return null !== $value;
		} ) );
	}

	private static function say( array $word ): bool {
		$line = json_encode( $word, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE ) . "\n";
		return self::connect() && self::hand_over( $line );
	}

	private static function connect(): bool {
		if ( null === self::$socket ) {
			$path         = getenv( 'PRESSROOM_AFFIRM' );
			self::$socket = $path ? @stream_socket_client( "unix://$path", $code, $message, self::CONNECT ) : false;
			if ( self::$socket ) {
				stream_set_blocking( self::$socket, false );
			} elseif ( $path ) {
				error_log( "pressroom: the edge cannot be reached on $path: $message" );
			}
		}
		return (bool) self::$socket;
	}

	private static function hand_over( string $line ): bool {
		$until = microtime( true ) + self::HANDOVER;
		while ( '' !== $line ) {
			$sent = @fwrite( self::$socket, $line );
			if ( false === $sent ) {
				self::hang_up( 'the edge closed the connection' );
				return false;
			}
			$line = (string) substr( $line, $sent );
			if ( '' !== $line && 0 === $sent && ! self::wait( 'write', $until - microtime( true ) ) ) {
				self::hang_up( 'the edge does not read' );
				return false;
			}
		}
		return true;
	}

	private static function wait_for_receipt(): bool {
		$began   = microtime( true );
		$receipt = '';
		while ( self::$patience > 0 && self::wait( 'read', self::$patience ) ) {
			$part = @fread( self::$socket, 8192 );
			if ( false === $part || ( '' === $part && feof( self::$socket ) ) ) {
				self::hang_up( 'the edge closed the connection before its receipt' );
				return false;
			}
			$receipt .= $part;
			if ( false !== strpos( $receipt, "\n" ) ) {
				// A late receipt of an earlier purge may come along; each says the same.
				return false !== strpos( $receipt, '"ok":true' );
			}
			self::$patience -= microtime( true ) - $began;
			$began           = microtime( true );
		}
		self::$patience = 0;
		error_log( 'pressroom: the edge has not confirmed a purge in time; the next request repeats it for the whole site' );
		return false;
	}

	private static function wait( string $for, float $seconds ): bool {
		if ( $seconds <= 0 ) {
			return false;
		}
		$read   = 'read' === $for ? array( self::$socket ) : null;
		$write  = 'write' === $for ? array( self::$socket ) : null;
		$except = null;
		return (int) @stream_select( $read, $write, $except, 0, (int) ( $seconds * 1e6 ) ) > 0;
	}

	private static function hang_up( string $why ): void {
		error_log( "pressroom: $why" );
		@fclose( self::$socket );
		self::$socket = false;
	}
}
