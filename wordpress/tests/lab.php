<?php
/**
 * What the tests stand on: claims, requests through php-fpm, other processes, and what the edge heard.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Lab {

	/** @var int */
	public static $passed = 0;

	/** @var int */
	public static $failed = 0;

	/** @var string Only claims with this in their name are checked; the others run silently. */
	public static $filter = '';

	public static function claim( string $claim, $holds, $detail = null ): void {
		if ( $holds ) {
			++self::$passed;
			return;
		}
		++self::$failed;
		echo "FAILED: $claim\n";
		if ( null !== $detail ) {
			echo '    ' . substr( is_string( $detail ) ? $detail : json_encode( $detail, JSON_UNESCAPED_SLASHES ), 0, 1500 ) . "\n";
		}
	}

	public static function same( string $claim, $expected, $actual ): void {
		self::claim( $claim, $expected === $actual, array( 'expected' => $expected, 'actual' => $actual ) );
	}

	/** Waits for a condition, at most $seconds. */
	public static function until( callable $condition, float $seconds = 5 ): bool {
		$end = microtime( true ) + $seconds;
		do {
			if ( $condition() ) {
				return true;
			}
			usleep( 5000 );
		} while ( microtime( true ) < $end );
		return false;
	}

	// --- Requests --------------------------------------------------------------------------------------------------------

	/**
	 * One request through php-fpm.
	 *
	 * @return array{status:int,headers:string,body:string,token:string,seconds:float}
	 */
	public static function request( string $uri, array $more = array() ): array {
		$token  = bin2hex( random_bytes( 16 ) );
		$body   = $more['body'] ?? '';
		$root   = getenv( 'LAB_ROOT' );
		$script = $more['script'] ?? '/index.php';
		$params = ( $more['params'] ?? array() ) + array(
			'GATEWAY_INTERFACE'   => 'CGI/1.1',
			'REQUEST_METHOD'      => 'GET',
			'SCRIPT_FILENAME'     => $root . $script,
			'SCRIPT_NAME'         => $script,
			'DOCUMENT_ROOT'       => $root,
			'REQUEST_URI'         => $uri,
			'QUERY_STRING'        => (string) parse_url( $uri, PHP_URL_QUERY ),
			'SERVER_PROTOCOL'     => 'HTTP/1.1',
			'HTTP_HOST'           => 'lab.test',
			'SERVER_NAME'         => 'lab.test',
			'SERVER_PORT'         => '443',
			'HTTPS'               => 'on',
			'REMOTE_ADDR'         => '192.0.2.1',
			'CONTENT_LENGTH'      => (string) strlen( $body ),
			'CONTENT_TYPE'        => '' === $body ? '' : 'application/x-www-form-urlencoded',
			'PRESSROOM_TOKEN'     => $token,
			'PRESSROOM_CANONICAL' => '1',
		);
		$data   = pack( 'CCnnCCnC6', 1, 1, 1, 8, 0, 0, 1, 0, 0, 0, 0, 0, 0 );
		$pairs  = '';
		foreach ( array_filter( $params, 'is_string' ) as $name => $value ) {
			$pairs .= self::length( strlen( $name ) ) . self::length( strlen( $value ) ) . $name . $value;
		}
		foreach ( array( 4 => $pairs, 5 => $body ) as $type => $content ) {
			foreach ( '' === $content ? array() : str_split( $content, 65000 ) as $part ) {
				$data .= pack( 'CCnnCC', 1, $type, 1, strlen( $part ), 0, 0 ) . $part;
			}
			$data .= pack( 'CCnnCC', 1, $type, 1, 0, 0, 0 );
		}
		$began  = microtime( true );
		$stream = stream_socket_client( 'unix://' . getenv( 'LAB' ) . '/fpm.sock' );
		fwrite( $stream, $data );
		stream_set_timeout( $stream, 20 );
		$output = '';
		while ( 8 === strlen( $head = (string) self::read( $stream, 8 ) ) ) {
			$record  = unpack( 'Cversion/Ctype/nid/nlength/Cpadding', $head );
			$content = self::read( $stream, $record['length'] + $record['padding'] );
			if ( 6 === $record['type'] ) {
				$output .= substr( $content, 0, $record['length'] );
			} elseif ( 3 === $record['type'] ) {
				break;
			}
		}
		$seconds = microtime( true ) - $began;
		fclose( $stream );
		list( $headers, $text ) = explode( "\r\n\r\n", $output, 2 ) + array( '', '' );
		return array(
			'status'  => preg_match( '/^Status: (\d+)/mi', $headers, $match ) ? (int) $match[1] : 200,
			'headers' => $headers,
			'body'    => $text,
			'token'   => $token,
			'seconds' => $seconds,
		);
	}

	/** What the edge was told by a request: its `done`, waited for. */
	public static function done( array $response ): ?array {
		$done = null;
		self::until( static function () use ( $response, &$done ) {
			foreach ( self::heard() as $word ) {
				if ( 'done' === $word['say'] && $response['token'] === ( $word['request'] ?? '' ) ) {
					$done = $word;
				}
			}
			return null !== $done;
		} );
		return $done;
	}

	/** What the last request cost, as the probe plugin wrote it down. */
	public static function cost(): array {
		return (array) json_decode( (string) @file_get_contents( getenv( 'PRESSROOM_CONFIG' ) . '.cost' ), true );
	}

	/** @var int */
	private static $read_from = 0;

	/** Forgets what the edge has heard so far. */
	public static function listen(): void {
		clearstatcache();
		self::$read_from = (int) @filesize( getenv( 'LAB' ) . '/edge.log' );
	}

	/** @return array[] Words since listen(), each with `at`. */
	public static function heard(): array {
		$words = array();
		foreach ( explode( "\n", (string) @file_get_contents( getenv( 'LAB' ) . '/edge.log', false, null, self::$read_from ) ) as $line ) {
			if ( '' !== $line ) {
				list( $at, $json ) = explode( ' ', $line, 2 );
				$words[]           = array( 'at' => (float) $at ) + (array) json_decode( $json, true );
			}
		}
		return $words;
	}

	/** @return array{0:string[],1:bool} All purged tags since listen(), and whether everything was. */
	public static function purged(): array {
		$tags = array();
		$all  = false;
		foreach ( self::heard() as $word ) {
			$purge = 'purge' === $word['say'] ? $word : ( $word['purge'] ?? array() );
			$tags  = array_merge( $tags, $purge['tags'] ?? array() );
			$all   = $all || ! empty( $purge['all'] );
		}
		return array( array_values( array_unique( $tags ) ), $all );
	}

	// --- Other processes -------------------------------------------------------------------------------------------------

	/** Runs PHP with WordPress loaded, as the command line does; returns what it printed. */
	public static function wp( string $code, array $environment = array() ): string {
		return self::finish( self::start( $code, $environment ) );
	}

	/** @return array{0:resource,1:resource} A process and its output. */
	public static function start( string $code, array $environment = array() ): array {
		$prelude = '$_SERVER["HTTP_HOST"]=getenv("LAB_HOST")?:"lab.test";$_SERVER["HTTPS"]="on";$_SERVER["REQUEST_URI"]="/";require getenv("LAB_ROOT")."/wp-load.php";';
		return self::process( $prelude . $code, $environment );
	}

	/** @return array{0:resource,1:resource} The same without WordPress. */
	public static function process( string $code, array $environment = array() ): array {
		$process = proc_open(
			array( getenv( 'LAB_PHP' ), '-d', 'display_errors=stderr', '-r', $code ),
			array( 1 => array( 'pipe', 'w' ), 2 => array( 'file', getenv( 'LAB' ) . '/children.log', 'a' ) ),
			$pipes,
			null,
			$environment + getenv()
		);
		return array( $process, $pipes[1] );
	}

	public static function finish( array $process ): string {
		$output = stream_get_contents( $process[1] );
		fclose( $process[1] );
		proc_close( $process[0] );
		return $output;
	}

	public static function script( string $script, array $arguments = array(), string $input = '' ): array {
		$process = proc_open(
			array_merge( array( getenv( 'LAB_PHP' ), getenv( 'LAB' ) . "/$script", getenv( 'LAB_ROOT' ) ), $arguments ),
			array( 0 => array( 'pipe', 'r' ), 1 => array( 'pipe', 'w' ), 2 => array( 'file', getenv( 'LAB' ) . '/children.log', 'a' ) ),
			$pipes
		);
		fwrite( $pipes[0], $input );
		fclose( $pipes[0] );
		$output = stream_get_contents( $pipes[1] );
		$status = proc_close( $process );
		return array( 'output' => $output, 'status' => $status, 'said' => json_decode( $output, true ) );
	}

	/** Freezes or thaws Redis. */
	public static function redis( string $signal ): void {
		posix_kill( (int) getenv( 'LAB_REDIS_PID' ), 'freeze' === $signal ? SIGSTOP : SIGCONT );
		usleep( 'freeze' === $signal ? 5000 : 20000 );
	}

	/** A connection that may do everything, to look behind the scenes. */
	public static function admin(): Redis {
		$redis = new Redis();
		$redis->connect( getenv( 'LAB' ) . '/redis.sock' );
		$redis->auth( array( 'lab', 'lab' ) );
		return $redis;
	}

	/** The same on the server of the sessions. */
	public static function sessions(): Redis {
		$redis = new Redis();
		$redis->connect( getenv( 'LAB_SESSIONS' ) );
		$redis->auth( array( 'lab', 'lab' ) );
		return $redis;
	}

	private static function length( int $length ): string {
		return $length < 128 ? chr( $length ) : pack( 'N', $length | 0x80000000 );
	}

	private static function read( $stream, int $length ): string {
		$data = '';
		while ( strlen( $data ) < $length ) {
			$part = fread( $stream, $length - strlen( $data ) );
			if ( '' === $part || false === $part ) {
				break;
			}
			$data .= $part;
		}
		return $data;
	}
}
