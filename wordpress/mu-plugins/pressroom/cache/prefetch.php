<?php
/**
 * Which keys a kind of request needs, so that one MGET brings them all.
 *
 * WordPress asks for 60 to 90 keys a page, one after another. The keys that a request used are remembered in Redis under the
 * request's *shape*: its URL where it is an anonymous page view, and the class of request it belongs to. The next request of
 * that shape fetches them at once; values it does not touch are never decoded.
 *
 * Always: a wrong or missing list costs round trips, nothing else. Lists are bounded and expire.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Cache_Prefetch {

	const MAX_KEYS  = 400;
	const MAX_BYTES = 1048576;
	const LIFETIME  = 604800;

	/** @var string[] Names of the lists of this request: the exact one first, then the class. */
	private $shapes;

	/** @var array<string,true> What the lists named. */
	private $expected = array();

	/** @var array<string,int> What was used: name => bytes. */
	private $used = array();

	/** @var bool[] Which of the lists existed. */
	private $known = array();

	public function __construct( array $server, bool $is_cli ) {
		$this->shapes = $is_cli ? array() : self::shapes( $server );
	}

	/** @return string[] Keys of the lists, below the site's prefix. */
	public function keys(): array {
		return $this->shapes;
	}

	/**
	 * Takes the stored lists and says what to fetch.
	 *
	 * @param array<int,string|false> $lists In the order of keys().
	 * @return string[]
	 */
	public function expect( array $lists ): array {
		foreach ( $lists as $index => $list ) {
			$this->known[ $index ] = is_string( $list );
		}
		// The exact list says all; the class is for a URL that is new.
		foreach ( $lists as $list ) {
			if ( is_string( $list ) && '' !== $list ) {
				$names          = array_slice( explode( "\n", $list ), 0, self::MAX_KEYS );
				$this->expected = array_fill_keys( $names, true );
				return $names;
			}
		}
		return array();
	}

	/** Notes that a name was asked for, and how large its value is. */
	public function used( string $name, int $bytes ): void {
		$this->used[ $name ] = $bytes;
	}

	/**
	 * The lists worth storing now.
	 *
	 * @return array<string,string> Key below the prefix => list. Empty where the old lists were good.
	 */
	public function lists(): array {
		if ( array() === $this->shapes || count( $this->used ) < 4 ) {
			return array();
		}
		$names  = $this->bounded( $this->used );
		$missed = count( array_diff_key( $names, $this->expected ) );
		$unused = count( array_diff_key( $this->expected, $this->used ) );
		$lists  = array();
		if ( empty( $this->known[0] ) || $missed > 0 || $unused > max( 8, count( $names ) / 4 ) ) {
			$lists[ $this->shapes[0] ] = implode( "\n", array_keys( $names ) );
		}
		// What the class has in common: at first everything, then only what this request also needed.
		$last = count( $this->shapes ) - 1;
		if ( $last > 0 && empty( $this->known[ $last ] ) ) {
			$lists[ $this->shapes[ $last ] ] = implode( "\n", array_keys( $names ) );
		} elseif ( $last > 0 && empty( $this->known[0] ) && $unused > max( 8, count( $this->expected ) / 4 ) ) {
			$lists[ $this->shapes[ $last ] ] = implode( "\n", array_keys( array_intersect_key( $names, $this->expected ) ) );
		}
		return $lists;
	}

	/**
	 * @param array<string,int> $used
	 * @return array<string,int> As many as a list may hold; what does not fit is asked for when it is needed.
	 */
	private function bounded( array $used ): array {
		$names = array();
		$bytes = 0;
		foreach ( $used as $name => $size ) {
			if ( count( $names ) < self::MAX_KEYS && $bytes + $size <= self::MAX_BYTES && false === strpos( $name, "\n" ) ) {
				$names[ $name ] = $size;
				$bytes         += $size;
			}
		}
		return $names;
	}

	/** @return string[] */
	private static function shapes( array $server ): array {
		$uri    = $server['REQUEST_URI'] ?? '/';
		$method = $server['REQUEST_METHOD'] ?? 'GET';
		$script = basename( $server['SCRIPT_NAME'] ?? 'index.php' );
		$user   = strpos( $server['HTTP_COOKIE'] ?? '', 'wordpress_logged_in_' ) !== false;
		$rest   = false !== strpos( $uri, '/wp-json/' ) || false !== strpos( $uri, 'rest_route=' );
		$admin  = false !== strpos( $uri, '/wp-admin/' );
		$host   = strtolower( $server['HTTP_HOST'] ?? '' );
		$class  = implode( ' ', array( $host, $method, $script, $admin ? 'admin' : '', $rest ? 'rest' : '', $user ? 'user' : '' ) );
		$shapes = array( 'shape:' . md5( $class ) );
		if ( ( 'GET' === $method || 'HEAD' === $method ) && ! $user && ! $admin && 'index.php' === $script ) {
			array_unshift( $shapes, 'shape:' . md5( "$class $uri" ) );
		}
		return $shapes;
	}
}
