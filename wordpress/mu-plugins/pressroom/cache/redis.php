<?php
/**
 * The connection to Redis, which fails open.
 *
 * One persistent connection per PHP worker, on a unix socket. The first failure of a request, whatever it is, closes the
 * connection and ends all use of Redis in this request: a frozen Redis costs one time-out (40 ms), once.
 *
 * Always: an answer belongs to its question. A connection that timed out is closed, never returned to the pool; a connection
 * taken from the pool proves itself by echoing a fresh nonce in its first pipeline, so the late answer of another request
 * (its process may have been killed between question and answer) cannot be taken for ours.
 * Always: no exception leaves this class.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Cache_Redis {

	/** @var float Seconds for connecting, and until a second attempt is not worth it. Only tests of other things change it. */
	public static $connect_timeout = 0.02;

	/** @var float Seconds for any one answer. Only tests of other things change it. */
	public static $read_timeout = 0.04;

	/** @var Redis|null */
	private $redis = null;

	/** @var bool Whether this request gave up on Redis. */
	private $down = false;

	/** @var string Why. */
	private $why = '';

	/** @var int Round trips of this request. */
	public $round_trips = 0;

	/** Whether Redis is configured and PHP can speak to it. */
	public static function is_configured(): bool {
		return defined( 'PRESSROOM_REDIS_SOCKET' ) && defined( 'PRESSROOM_REDIS_PREFIX' )
			&& extension_loaded( 'redis' ) && extension_loaded( 'igbinary' );
	}

	/** Whether this request may still ask Redis. */
	public function is_up(): bool {
		return ! $this->down;
	}

	/** Why it may not, for the log and for Site Health. */
	public function why_down(): string {
		return $this->why;
	}

	/**
	 * Sends commands in one round trip and returns their answers in order.
	 *
	 * @param array<int,array> $commands Each a method of phpredis with its arguments, or `transaction` with commands that run
	 *                                   between MULTI and EXEC.
	 * @return array<int,mixed>|null Null: Redis failed, now or earlier in this request. An absent value is false; a transaction
	 *                               that did not happen, because a watched key had changed, is an empty array.
	 */
	public function send( array $commands ): ?array {
		if ( $this->down ) {
			return null;
		}
		try {
			return null === $this->redis ? $this->open( $commands ) : $this->pipeline( $commands );
		} catch ( Throwable $error ) {
			$this->give_up( $error->getMessage() );
			return null;
		}
	}

	/** Ends the use of Redis in this request. */
	public function give_up( string $why ): void {
		$this->down = true;
		$this->why  = $why;
		$this->drop();
		error_log( "pressroom: object cache goes on without Redis in this request: $why" );
	}

	/** The first pipeline of a request: takes a connection from the pool and makes it prove itself. */
	private function open( array $commands ): array {
		// Our nonce replaces phpredis's own check, which would cost a round trip.
		ini_set( 'redis.pconnect.echo_check_liveness', '0' );
		ini_set( 'redis.pconnect.pool_detect_dirty', '2' );
		foreach ( array( false, true ) as $fresh ) {
			try {
				$this->connect();
				if ( $fresh && defined( 'PRESSROOM_REDIS_PASSWORD' ) ) {
					++$this->round_trips;
					$this->redis->auth( array( PRESSROOM_REDIS_USER, PRESSROOM_REDIS_PASSWORD ) );
				}
				$nonce   = bin2hex( random_bytes( 8 ) );
				$answers = $this->pipeline( array_merge( array( array( 'echo', $nonce ) ), $commands ) );
				if ( array_shift( $answers ) === $nonce ) {
					return $answers;
				}
				$problem = 'an answer that belongs to another question';
			} catch ( RedisException $error ) {
				$problem = $error->getMessage();
			}
			$this->drop();
			// A new connection is not logged in yet, which a Redis says that is well, however busy the machine is.
			if ( preg_match( '/NOAUTH/', $problem ) ) {
				continue;
			}
			// An old one may have been closed by Redis; anything else is an outage.
			if ( ! preg_match( '/another question|went away|lost|closed|error on (write|read socket)/i', $problem ) || $this->took_long() ) {
				break;
			}
		}
		throw new RuntimeException( $problem );
	}

	/** @var float When the first attempt of open() began. */
	private $began = 0.0;

	private function took_long(): bool {
		return microtime( true ) - $this->began > self::$connect_timeout;
	}

	private function connect(): void {
		if ( 0.0 === $this->began ) {
			$this->began = microtime( true );
		}
		$redis = new Redis();
		if ( ! @$redis->pconnect( PRESSROOM_REDIS_SOCKET, 0, self::$connect_timeout, 'pressroom ' . PRESSROOM_REDIS_PREFIX, 0, self::$read_timeout ) ) {
			throw new RedisException( 'cannot connect to ' . PRESSROOM_REDIS_SOCKET );
		}
		$redis->setOption( Redis::OPT_MAX_RETRIES, 0 );
		$this->redis = $redis;
	}

	private function pipeline( array $commands ): array {
		++$this->round_trips;
		$pipeline = $this->redis->pipeline();
		// Never rawCommand(): its reader waits for every answer of a frozen Redis in turn, the others give up at the first.
		foreach ( $commands as $command ) {
			if ( 'transaction' === $command[0] ) {
				$pipeline->multi();
				foreach ( $command[1] as $inner ) {
					$pipeline->{$inner[0]}( ...array_slice( $inner, 1 ) );
				}
				$pipeline->exec();
			} else {
				$pipeline->{$command[0]}( ...array_slice( $command, 1 ) );
			}
		}
		$answers = $pipeline->exec();
		if ( ! is_array( $answers ) || count( $answers ) !== count( $commands ) ) {
			throw new RedisException( 'an answer is missing' );
		}
		return $answers;
	}

	private function drop(): void {
		if ( null !== $this->redis ) {
			try {
				$this->redis->close();
			} catch ( Throwable $error ) {
				unset( $error ); // It was closed already.
			}
			$this->redis = null;
		}
	}
}
