<?php
/**
 * Which addresses become which, in all the forms that a text may write them in. Part of `rewrite.php`; needs no WordPress.
 *
 * A text has an address as `https://HOST`, `http://HOST` or `//HOST`, with or without a port; the slashes may be escaped as JSON
 * does it (`\/`, `\u002F`, at any depth) and all may be URL-encoded, once or twice. The form stays, the address moves: both schemes
 * become the target's. The host is read to its end and then looked up, so a longer one (or another port) is another address.
 *
 * In a network the blogs below the old host have addresses of their own: `x.OLD` becomes `x.NEW`. Only hosts of blogs move, not
 * everything that is below (`cdn.OLD`); and `www.` in front of a network's host is no part of what blogs are below of.
 *
 * Always: what was moved is not moved again, also where the new host ends with the old one or differs by its port alone.
 * Deliberately missing: bare host names in texts, e-mail addresses, URLs with a password.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Addresses {

	/** @var array{scheme:string,host:string,port:string}[] */
	private $from;

	/** @var array{scheme:string,host:string,port:string} */
	private $to;

	/** @var array<string,array<string,array>> Targets by host and port ('': the scheme's own). */
	private $targets = array();

	/** @var array<string,string> Directories: old to new. */
	private $paths = array();

	/** @var string */
	private $pattern;

	/** @var string */
	private $paths_pattern = '';

	/**
	 * @param string[]                $from  Addresses as `https://HOST[:PORT]`.
	 * @param string                  $to    Another.
	 * @param array{0:string,1:string}[] $paths Directories, old and new.
	 */
	public function __construct( array $from, string $to, array $paths = array() ) {
		$this->from = array_map( array( self::class, 'parse' ), array_values( $from ) );
		$this->to   = self::parse( $to );
		foreach ( $this->from as $address ) {
			$this->targets[ $address['host'] ][ $address['port'] ] = $this->to;
		}
		$colon = '(?:%(?:25)?3A|:)';
		$slash = '(?i:\\\\*+/|\\\\++u002F|%(?:25)?2F)';
		$label = '(?:[a-z0-9_-]|\\\\++u002d)++';
		// What may stand before `//`: no scheme, and nothing that makes it the middle of a path.
		$before        = '(?:(?<![\w\~.:/\\\\-])|(?<=%[0-9a-f]{2})(?<!%3A|%2F)|(?<=%25[0-9a-f]{2})(?<!%253A|%252F)|(?<=\\\\u[0-9a-f]{4})(?<!\\\\u003A|\\\\u002F)|(?<=\\\\[nrtbf]))';
		// What may not stand behind: another name before the real host, or a host that goes on in some other spelling.
		$behind        = '(?!@|%40|:[^\s/@"\'<>\\\\?#]{0,200}@|\.\\\\*/|\.:\d|\.(?!\xE2[\x80\x81]|\xE3\x80)[\x80-\xFF]|%2[DE]|\\\\+u002[de])';
		$this->pattern = "~(?:(https?)($colon)|$before)($slash)($slash)($label(?:\\.$label)*+)(?:($colon)(\\d++))?+$behind~i";
		foreach ( $paths as list( $old, $new ) ) {
			$this->paths[ $old ] = $new;
		}
		if ( $this->paths ) {
			// A directory inside of which the new one is: what is there already stays.
			$each = array();
			foreach ( $this->paths as $old => $new ) {
				$rest   = 0 === strncmp( $new, "$old/", strlen( $old ) + 1 ) ? substr( $new, strlen( $old ) ) : '';
				$each[] = self::path( $old, $slash ) . ( '' === $rest ? '' : '(?!' . self::path( $rest, $slash ) . '(?![\w-]))' );
			}
			$this->paths_pattern = '~(?:(?<![\w.\~/\\\\-]|%2F|%2f)|(?<=file://))(?:' . implode( '|', $each ) . ')(?![\w-]|\.\w)~';
		}
	}

	private static function path( string $path, string $slash ): string {
		return implode( $slash, array_map( static function ( $part ) {
			return preg_quote( $part, '~' );
		}, explode( '/', $path ) ) );
	}

	/**
	 * Reads an address.
	 *
	 * @throws InvalidArgumentException Saying what is wrong with it.
	 */
	private static function parse( string $address ): array {
		if ( ! preg_match( '~^(https?)://([a-z0-9_](?:[a-z0-9._-]*[a-z0-9])?)(?::(\d{1,5}))?/?$~i', $address, $match ) ) {
			throw new InvalidArgumentException( "`$address` is not an address like `https://host:8443`, without a path and with the host in ASCII" );
		}
		$scheme = strtolower( $match[1] );
		return array(
			'scheme' => $scheme,
			'host'   => strtolower( $match[2] ),
			'port'   => self::port( $scheme, $match[3] ?? '' ),
		);
	}

	/** A port, '' if a scheme (or, without one, any of the two) has it anyway. */
	private static function port( string $scheme, string $port ): string {
		$is_usual = ( '443' === $port && 'http' !== $scheme ) || ( '80' === $port && 'https' !== $scheme );
		return $is_usual ? '' : $port;
	}

	/** @return string[] For each thing that moves, what a text must have to contain it, as pieces in their order. */
	public function needles(): array {
		$needles = array();
		foreach ( $this->from as $address ) {
			$needles[] = explode( '-', self::base( $address['host'] ) );
		}
		foreach ( array_keys( $this->paths ) as $old ) {
			$needles[] = explode( '/', trim( $old, '/' ) );
		}
		return array_values( array_unique( $needles, SORT_REGULAR ) );
	}

	// --- Texts -----------------------------------------------------------------------------------------------------------

	/**
	 * Moves all addresses of a text that has no structure.
	 *
	 * @throws UnexpectedValueException If it cannot be searched.
	 */
	public function move( string $text ): string {
		$text = preg_replace_callback(
			$this->pattern,
			function ( array $match ): string {
				list( $all, $scheme, $colon, $first, $second, $host ) = $match;

				$port = self::port( strtolower( $scheme ), $match[7] ?? '' );
				$host = preg_replace( '~\\\\+u002d~i', '-', $host );
				$to   = $this->targets[ strtolower( $host ) ][ $port ] ?? null;
				if ( null === $to ) {
					return $all;
				}
				if ( '' === $colon ) {
					$colon = $match[6] ?? ( '%' === $first[0] ? strtr( $first, array( '2F' => '3A', '2f' => '3a' ) ) : ':' );
				}
				return ( '' === $scheme ? '' : $to['scheme'] . $colon ) . $first . $second . $to['host'] . ( '' === $to['port'] ? '' : $colon . $to['port'] );
			},
			$text
		);
		if ( null !== $text && '' !== $this->paths_pattern ) {
			$text = preg_replace_callback(
				$this->paths_pattern,
				function ( array $match ): string {
					preg_match( '~\\\\*/|\\\\+u002F|%(?:25)?2F~i', $match[0], $slash );
					$old = preg_replace( '~\\\\*/|\\\\+u002F|%(?:25)?2F~i', '/', $match[0] );
					return str_replace( '/', $slash[0], $this->paths[ $old ] );
				},
				$text
			);
		}
		if ( null === $text ) {
			throw new UnexpectedValueException( 'it cannot be searched: ' . preg_last_error_msg() );
		}
		return $text;
	}

	// --- Networks --------------------------------------------------------------------------------------------------------

	/** @param string[] $domains Of the blogs of a network, whether they moved already or not: their addresses move in texts, too. */
	public function know_blogs( array $domains ): void {
		foreach ( $domains as $domain ) {
			$new = $this->domain( $domain ) ?? $domain;
			if ( ! $this->is_there( $new ) ) {
				continue;
			}
			$below = substr( self::split( $new )[0], 0, -strlen( self::base( $this->to['host'] ) ) );
			foreach ( self::split( $new )[0] === $this->to['host'] ? array() : $this->from as $address ) {
				$this->targets[ $below . self::base( $address['host'] ) ][ $address['port'] ] = array( 'host' => self::split( $new )[0] ) + $this->to;
			}
		}
	}

	/** A domain as WordPress's tables have it (host and port), moved; null: it is none of ours. */
	public function domain( string $domain ): ?string {
		list( $host, $port ) = self::split( $domain );
		if ( isset( $this->targets[ $host ][ $port ] ) ) {
			return self::join( $this->targets[ $host ][ $port ] );
		}
		// Of an old and a new host, one may be below the other: the longer one says whether this moved already.
		$longest = $this->is_there( $domain ) ? strlen( self::base( $this->to['host'] ) ) : 0;
		$moved   = $longest ? $domain : null;
		foreach ( $this->from as $address ) {
			$base = self::base( $address['host'] );
			if ( $port === $address['port'] && self::is_below( $host, $base ) && strlen( $base ) > $longest ) {
				$longest = strlen( $base );
				$moved   = self::join( array( 'host' => substr( $host, 0, -$longest ) . self::base( $this->to['host'] ) ) + $this->to );
			}
		}
		return $moved;
	}

	/** A text that is nothing but an old host, moved; else as it is. */
	public function host( string $text ): string {
		list( $host, $port ) = self::split( $text );
		return isset( $this->targets[ $host ][ $port ] ) ? self::join( $this->targets[ $host ][ $port ] ) : $text;
	}

	/** Whether a domain is the new one, or below. */
	private function is_there( string $domain ): bool {
		list( $host, $port ) = self::split( $domain );
		return $port === $this->to['port'] && ( $host === $this->to['host'] || self::is_below( $host, self::base( $this->to['host'] ) ) );
	}

	private static function is_below( string $host, string $base ): bool {
		return substr( $host, -strlen( $base ) - 1 ) === ".$base";
	}

	/** What the hosts of a network's blogs end with. */
	private static function base( string $host ): string {
		return (string) preg_replace( '/^www\./', '', $host );
	}

	/** @return array{0:string,1:string} */
	private static function split( string $domain ): array {
		list( $host, $port ) = explode( ':', strtolower( $domain ), 2 ) + array( '', '' );
		return array( $host, self::port( '', $port ) );
	}

	private static function join( array $address ): string {
		return $address['host'] . ( '' === $address['port'] ? '' : ":{$address['port']}" );
	}
}
