<?php
/**
 * Reads what PHP's `serialize()` writes, token by token, and copies it with other strings. Part of `rewrite.php`; needs no WordPress.
 *
 * Lengths are counted in bytes, whatever the text is. Numbers, references, names of classes and of private members are copied; how
 * many members there are stays the same, so references go on meaning what they meant.
 *
 * Always: data whose lengths, counts or tokens are wrong is refused, by an UnexpectedValueException, before anything is given back.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Serialised {

	/** How deep `unserialize()` goes. */
	const DEPTH = 4096;

	/** What WordPress trims before it unserialises. */
	const BLANK = " \n\r\t\v\0";

	/** @var string */
	private $data;

	/** @var Pressroom_Values */
	private $values;

	/** @var int */
	private $level;

	/** @var int */
	private $at = 0;

	/** @var int How much of the data is in the pieces. */
	private $copied = 0;

	/** @var string[] */
	private $pieces = array();

	public function __construct( string $data, Pressroom_Values $values, int $level ) {
		$this->data   = $data;
		$this->values = $values;
		$this->level  = $level;
	}

	/** Whether a value is meant to be serialised, sound or broken. Numbers and the like are none: they hold no address. */
	public static function is_meant( string $value ): bool {
		return 1 === preg_match( '/^[\s\0]*+(?:[sS]:\d+:"|a:\d+:\{|[OCE]:\d+:")/', $value );
	}

	/**
	 * The data with its strings moved.
	 *
	 * @param bool $is_sequence Several values with marks between them, as the classes of SPL write them.
	 */
	public function moved( bool $is_sequence = false ): string {
		$this->at = strspn( $this->data, self::BLANK );
		do {
			$this->at += $is_sequence ? $this->marks() : 0;
			$this->read( 0 );
			$this->at += $is_sequence ? $this->marks() : 0;
		} while ( $is_sequence && $this->at < strlen( $this->data ) );
		if ( $this->at + strspn( $this->data, self::BLANK, $this->at ) !== strlen( $this->data ) ) {
			throw $this->broken( 'ends, and more follows' );
		}
		return implode( '', $this->pieces ) . substr( $this->data, $this->copied );
	}

	/** The length of the marks between values. */
	private function marks(): int {
		preg_match( '/(?:[,;:]|[xm]:)*+/A', $this->data, $match, 0, $this->at );
		return strlen( $match[0] );
	}

	private function read( int $depth ): void {
		if ( $depth > self::DEPTH ) {
			throw $this->broken( 'is nested deeper than PHP reads' );
		}
		switch ( $this->data[ $this->at ] ?? '' ) {
			case 's':
				$this->string();
				return;
			case 'a':
				$this->members( (int) $this->token( '/a:(\d{1,10}):\{/A' )[1], $depth );
				return;
			case 'O':
				$this->name( 'O' );
				$this->members( (int) $this->token( '/:(\d{1,10}):\{/A' )[1], $depth );
				return;
			case 'C':
				$this->payload();
				return;
			case 'E':
				$this->name( 'E' );
				$this->token( '/;/A' );
				return;
		}
		$this->token( '/(?:N|b:[01]|i:[+-]?\d+|d:(?:-?INF|NAN|[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|[rR]:\d+);/A' );
	}

	private function token( string $pattern ): array {
		if ( ! preg_match( $pattern, $this->data, $match, 0, $this->at ) ) {
			throw $this->broken( strlen( $this->data ) > $this->at ? 'is not understood' : 'is cut off' );
		}
		$this->at += strlen( $match[0] );
		return $match;
	}

	/** So many bytes, and what follows them. */
	private function bytes( string $length, string $end ): string {
		$bytes = substr( $this->data, $this->at, (int) $length );
		if ( substr( $this->data, $this->at + (int) $length, strlen( $end ) ) !== $end ) {
			throw $this->broken( "has something of $length bytes that does not end there" );
		}
		$this->at += (int) $length + strlen( $end );
		return $bytes;
	}

	private function name( string $token ): string {
		return $this->bytes( $this->token( "/$token:(\d{1,10}):\"/A" )[1], '"' );
	}

	/** Puts something else in the place of what began at `$start` and was read just now. */
	private function replace( int $start, string $by ): void {
		$this->pieces[] = substr( $this->data, $this->copied, $start - $this->copied );
		$this->pieces[] = $by;
		$this->copied   = $this->at;
	}

	private function string(): void {
		$start = $this->at;
		$old   = $this->bytes( $this->token( '/s:(\d{1,10}):"/A' )[1], '";' );
		$new   = $this->values->value( $old, $this->level + 1 );
		if ( $new !== $old ) {
			$this->replace( $start, self::written( $new ) );
		}
	}

	private static function written( string $string ): string {
		return 's:' . strlen( $string ) . ":\"$string\";";
	}

	private function members( int $count, int $depth ): void {
		$keys  = array();
		$moved = array();
		for ( ; $count > 0; --$count ) {
			$start = $this->at;
			if ( 's' !== ( $this->data[ $start ] ?? '' ) ) {
				$this->token( '/i:[+-]?\d+;/A' );
			} else {
				$old          = $this->bytes( $this->token( '/s:(\d{1,10}):"/A' )[1], '";' );
				$keys[ $old ] = true;
				// A private or protected member: NUL, class, NUL, name.
				$new = "\0" === ( $old[0] ?? '' ) ? $old : $this->values->value( $old, $this->level + 1 );
				if ( $new !== $old ) {
					$this->replace( $start, self::written( $new ) );
					$moved[] = array( count( $this->pieces ) - 1, $old, $new );
				}
			}
			$this->read( $depth + 1 );
		}
		$this->token( '/\}/A' );
		foreach ( $moved as list( $piece, $old, $new ) ) {
			if ( isset( $keys[ $new ] ) ) {
				$this->pieces[ $piece ] = self::written( $old );
				$this->values->note( 'a key stayed, because another one would become the same' );
			}
			$keys[ $new ] = true;
		}
	}

	private function payload(): void {
		$class = $this->name( 'C' );
		$begin = $this->at;
		$old   = $this->bytes( $this->token( '/:(\d{1,10}):\{/A' )[1], '}' );
		$new   = $this->values->payload( $old, $class, $this->level + 1 );
		if ( $new !== $old ) {
			$this->replace( $begin, ':' . strlen( $new ) . ':{' . $new . '}' );
		}
	}

	private function broken( string $what ): UnexpectedValueException {
		return new UnexpectedValueException( "serialised data $what (at byte $this->at)" );
	}
}
