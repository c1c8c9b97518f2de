<?php
/**
 * Moves the addresses inside of one value of the database, whatever is packed in what. Part of `rewrite.php`; needs no WordPress.
 *
 * A value is serialised data, JSON, or a text; a string inside of the first two is a value again. Serialised data is read by a parser
 * of tokens and copied byte for byte, but for strings that changed and their lengths: nothing is ever unserialised, so classes
 * need not be known, and none is made. JSON is a text too, unless something serialised is inside, which has lengths to set right.
 *
 * Always: what is serialised and broken stays as it is, byte for byte, and so does a broken string inside of a sound value;
 * `reasons()` says so. A key stays if another member of the same array has the new one.
 * Deliberately missing: base64, and other data that is packed.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Values {

	/** How deep values are looked for inside of strings. Each level is one more copy. */
	const LEVELS = 64;

	/** @var Pressroom_Addresses */
	private $addresses;

	/** @var string What a string without any of this cannot contain. */
	private $needle;

	/** @var string[] */
	private $reasons = array();

	public function __construct( Pressroom_Addresses $addresses ) {
		$this->addresses = $addresses;
		$alternatives    = array();
		foreach ( $addresses->needles() as $pieces ) {
			$alternatives[] = implode( '.{1,16}?', array_map( 'preg_quote', $pieces ) );
		}
		$this->needle = "\x01" . implode( '|', $alternatives ) . "\x01is";
	}

	public function move( string $value ): string {
		$this->reasons = array();
		return $this->value( $value, 0 );
	}

	/** @return string[] Why something of the last value was left as it is. */
	public function reasons(): array {
		return array_values( array_unique( $this->reasons ) );
	}

	/** @internal For the parser. */
	public function note( string $reason ): void {
		$this->reasons[] = $reason;
	}

	/** @internal For the parser: a string inside of a value. */
	public function value( string $value, int $level ): string {
		if ( ! preg_match( $this->needle, $value ) ) {
			return $value;
		}
		if ( $level > self::LEVELS ) {
			$this->reasons[] = 'strings inside of strings are nested deeper than ' . self::LEVELS;
			return $value;
		}
		try {
			if ( Pressroom_Serialised::is_meant( $value ) ) {
				return ( new Pressroom_Serialised( $value, $this, $level ) )->moved();
			}
			return self::is_json( $value ) ? $this->json( $value, $level ) : $this->text( $value, $level );
		} catch ( UnexpectedValueException $error ) {
			$this->reasons[] = ( $level ? 'a string inside: ' : '' ) . $error->getMessage();
			return $value;
		}
	}

	/** @internal For the parser: what a class wrote in a form of its own (`Serializable`). */
	public function payload( string $payload, string $class, int $level ): string {
		if ( ! preg_match( $this->needle, $payload ) ) {
			return $payload;
		}
		try {
			if ( Pressroom_Serialised::is_meant( $payload ) ) {
				return ( new Pressroom_Serialised( $payload, $this, $level ) )->moved();
			}
			if ( self::is_json( $payload, '/^/' ) ) {
				return $this->json( $payload, $level );
			}
			return ( new Pressroom_Serialised( $payload, $this, $level ) )->moved( true );
		} catch ( UnexpectedValueException $error ) {
			$this->reasons[] = "an object of class `$class` has a form of its own";
			return $payload;
		}
	}

	// --- Texts -----------------------------------------------------------------------------------------------------------

	/** A text. Serialised strings in the middle of it are found by their lengths, if these are right. */
	private function text( string $text, int $level ): string {
		$moved  = '';
		$copied = 0;
		$at     = 0;
		while ( preg_match( '/(?<![A-Za-z0-9_])s:(\d{1,9}):"/', $text, $match, PREG_OFFSET_CAPTURE, $at ) ) {
			$at     = $match[0][1] + strlen( $match[0][0] );
			$length = (int) $match[1][0];
			if ( '";' !== substr( $text, $at + $length, 2 ) ) {
				continue;
			}
			$inner   = $this->value( substr( $text, $at, $length ), $level + 1 );
			$moved  .= $this->addresses->move( substr( $text, $copied, $match[0][1] - $copied ) ) . 's:' . strlen( $inner ) . ":\"$inner\";";
			$copied  = $at + $length + 2;
			$at      = $copied;
		}
		return $moved . $this->addresses->move( substr( $text, $copied ) );
	}

	// --- JSON ------------------------------------------------------------------------------------------------------------

	/** Whether a value is JSON with something serialised in it. Other JSON is as good as a text. */
	private static function is_json( string $value, string $hint = '/[asOCE]:\d+:/' ): bool {
		$first = $value[ strspn( $value, " \t\r\n" ) ] ?? '';
		if ( '{' !== $first && '[' !== $first && '"' !== $first ) {
			return false;
		}
		return preg_match( $hint, $value ) && null !== json_decode( $value, true, 4096 );
	}

	/** Its strings one by one; all else is copied. */
	private function json( string $json, int $level ): string {
		$moved = '';
		$at    = 0;
		while ( false !== ( $start = strpos( $json, '"', $at ) ) ) {
			$end = $start + 1;
			while ( '"' !== $json[ $end += strcspn( $json, '"\\', $end ) ] ) {
				$end += 2;
			}
			$raw    = substr( $json, $start, $end + 1 - $start );
			$moved .= substr( $json, $at, $start - $at );
			$at     = $end + 1;
			$old    = json_decode( $raw );
			$new    = $this->value( $old, $level + 1 );
			$moved .= $new === $old ? $raw : self::string_like( $raw, $old, $new );
		}
		return $moved . substr( $json, $at );
	}

	/** A string as JSON, in the manner of another one. */
	private static function string_like( string $raw, string $old, string $new ): string {
		$hex = JSON_HEX_QUOT | JSON_HEX_TAG | JSON_HEX_AMP | JSON_HEX_APOS;
		foreach ( array( 0, JSON_UNESCAPED_SLASHES, JSON_UNESCAPED_UNICODE, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE ) as $flags ) {
			foreach ( array( 0, $hex, JSON_UNESCAPED_LINE_TERMINATORS ) as $more ) {
				if ( json_encode( $old, $flags | $more ) === $raw ) {
					return json_encode( $new, $flags | $more );
				}
			}
		}
		$flags = ( strpos( $raw, '\\/' ) ? 0 : JSON_UNESCAPED_SLASHES ) | ( strpos( $raw, '\\u' ) ? 0 : JSON_UNESCAPED_UNICODE );
		return json_encode( $new, $flags );
	}
}
