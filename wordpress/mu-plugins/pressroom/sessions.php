<?php
/**
 * PHP's sessions in the sessions server, without scripts.
 *
 * The handler of ext-redis gives its lock back by a Lua script, so every site would need the right to run scripts, and one
 * endless script stops the sessions of all. This one needs plain commands only (README.md lists them) and keeps the names of
 * the keys: `SITE:session:ID`, and `SITE:session:ID_LOCK` while a request has it.
 *
 * Always: data leaves only under the lock, and is written only while the lock is still ours. Who cannot have it in time, or
 * has lost it, hears so: session_start() is false, or the write fails with a line in the log. A worker that is killed leaves
 * a lock that expires by itself, just after php-fpm would have ended the request anyway.
 * Always: a Redis that is away or silent costs about a second, once in a request, and no exception leaves this class.
 *
 * A connection serves one request and is closed by the first error: no answer can be taken for another's, and no WATCH or
 * MULTI is left behind. `wp-config.php` registers this; a request without a session connects to nothing.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Sessions implements SessionHandlerInterface, SessionIdInterface, SessionUpdateTimestampHandlerInterface {

	/** Seconds that Redis may take for an answer, or to be there again after it was restarted. */
	const PATIENCE = 1.0;

	/** Most seconds to wait for another request of the same visitor. */
	const MOST_WAIT = 30.0;

	/** @var string */
	private $socket;

	/** @var array User and password. */
	private $login;

	/** @var string */
	private $prefix;

	/** @var Redis|null */
	private $redis = null;

	/** @var string Why this request asks Redis no more; empty while it does. */
	private $down = '';

	/** @var string The lock's value while it is ours. */
	private $token = '';

	/** @var string The session that we hold the lock of, or none. */
	private $locked = '';

	/** @var string The session that could not be locked. */
	private $refused = '';

	/** @var array<string,string> What validateId() has read, for read(). */
	private $found = array();

	/** @var string The id that was made last. */
	private $made = '';

	/** @var int How often the session was opened in this request. */
	private $opened = 0;

	/**
	 * Takes the place of ext-redis, where php.ini names that: called once, before any plugin.
	 *
	 * PHP prints `session.save_path` in its warnings, and there is a password in it: it is emptied for this request.
	 */
	public static function register(): void {
		if ( 'redis' !== ini_get( 'session.save_handler' ) || PHP_SESSION_NONE !== session_status() || headers_sent() ) {
			return;
		}
		$path = (string) ini_get( 'session.save_path' );
		if ( extension_loaded( 'redis' ) && preg_match( '~^unix://([^?]+)\?(.+)$~', $path, $match ) ) {
			parse_str( $match[2], $options );
			session_set_save_handler( new self( $match[1], $options ), false );
			ini_set( 'session.save_path', '' );
		}
	}

	/**
	 * PHP closes the session itself after the last shutdown function, so what a plugin puts into it there is saved, too.
	 *
	 * @param string $socket  The socket of the sessions server.
	 * @param array  $options Of `session.save_path`: `auth[user]`, `auth[pass]` and `prefix`.
	 */
	private function __construct( string $socket, array $options ) {
		$this->socket = $socket;
		$this->login  = array( (string) ( $options['auth']['user'] ?? '' ), (string) ( $options['auth']['pass'] ?? '' ) );
		$this->prefix = (string) ( $options['prefix'] ?? '' );
	}

	public function open( string $path, string $name ): bool {
		++$this->opened;
		$this->refused = '';
		$this->found   = array();
		return $this->tried( 'be opened', function () {
			return true;
		} );
	}

	/** A new id, by PHP's own rules. */
	public function create_sid(): string {
		$this->made = (string) session_create_id();
		return $this->made;
	}

	/**
	 * Whether there is such a session; PHP makes a new id otherwise (strict mode).
	 *
	 * It is locked here already, so that nobody destroys it between this and read(). When Redis cannot say, the visitor keeps
	 * the id, and read() fails.
	 */
	public function validateId( string $id ): bool {
		if ( ! self::is_good( $id ) ) {
			return false;
		}
		$exists = $this->tried( 'be looked up', function () use ( $id ) {
			return $this->redis->exists( $this->prefix . $id ) ? 1 : 0;
		} );
		if ( 0 === $exists ) {
			return false;
		}
		$data = false === $exists ? false : $this->take( $id );
		if ( false === $data ) {
			$this->refused = $id;
			return true;
		}
		if ( null === $data ) {
			$this->release();
			return false;
		}
		$this->found = array( $id => $data );
		return true;
	}

	/** The session's data, and the lock with them. */
	#[\ReturnTypeWillChange]
	public function read( string $id ) {
		if ( isset( $this->found[ $id ] ) ) {
			return $this->found[ $id ];
		}
		if ( $this->refused === $id || ! self::is_good( $id ) ) {
			return false;
		}
		$data = $this->take( $id );
		// session_regenerate_id() would end the request by an Error. A new session has nothing to hand out, and is not saved.
		if ( false === $data && $this->opened > 1 && $this->made === $id ) {
			return '';
		}
		return $data ?? '';
	}

	public function write( string $id, string $data ): bool {
		if ( '' === $this->locked || $this->locked !== $id ) {
			error_log( 'pressroom: a session was not saved: this request does not have its lock' );
			return false;
		}
		$done = $this->tried( 'be saved', function () use ( $id, $data ) {
			return $this->while_ours( array( 'setex', $this->prefix . $id, self::lifetime(), $data ) ) ? 'saved' : 'lost';
		} );
		if ( 'lost' === $done ) {
			$this->locked = '';
			error_log( 'pressroom: a session was not saved: its lock was lost, because the request took longer than ' . self::lock_seconds() . ' s or Redis was restarted, and another request may have saved newer data' );
		}
		return 'saved' === $done;
	}

	/** Unchanged data: lives on. */
	public function updateTimestamp( string $id, string $data ): bool {
		$lives = $this->tried( 'be kept alive', function () use ( $id ) {
			return $this->redis->expire( $this->prefix . $id, self::lifetime() ) ? 1 : 0;
		} );
		// A new one with nothing in it yet is stored, too: strict mode would refuse its id the next time.
		return 0 === $lives ? $this->write( $id, $data ) : 1 === $lives;
	}

	/** Whether we have the lock or not: who logs out is logged out. */
	public function destroy( string $id ): bool {
		return ! self::is_good( $id ) || $this->tried( 'be destroyed', function () use ( $id ) {
			$this->redis->del( $this->prefix . $id );
			return true;
		} );
	}

	public function close(): bool {
		$this->found = array();
		$this->release();
		return true;
	}

	/** Redis forgets by itself. */
	#[\ReturnTypeWillChange]
	public function gc( int $lifetime ) {
		return 0;
	}

	// --- The lock --------------------------------------------------------------------------------------------------------

	/**
	 * Locks a session and reads it.
	 *
	 * @return string|false|null False: not to be had. Null: there is none.
	 */
	private function take( string $id ) {
		if ( ! $this->lock( $id ) ) {
			return false;
		}
		$read = $this->tried( 'be read', function () use ( $id ) {
			$data = $this->redis->get( $this->prefix . $id );
			return array( false === $data ? null : (string) $data );
		} );
		return false === $read ? false : $read[0];
	}

	private function lock( string $id ): bool {
		if ( $this->locked === $id ) {
			return true;
		}
		$this->release();
		$this->token = bin2hex( random_bytes( 16 ) );
		$key         = $this->lock_key( $id );
		$until       = microtime( true ) + self::most_wait();
		$pause       = 1000;
		do {
			$got = $this->tried( 'be locked', function () use ( $key ) {
				// After a broken connection the lock may be ours without our having heard so.
				return $this->redis->set( $key, $this->token, array( 'nx', 'px' => 1000 * self::lock_seconds() ) )
					|| $this->redis->get( $key ) === $this->token ? 1 : 0;
			} );
			if ( false === $got ) {
				return false;
			}
			if ( 1 === $got ) {
				$this->locked = $id;
				return true;
			}
			usleep( random_int( intdiv( $pause, 2 ), $pause ) );
			$pause = min( 25000, intdiv( $pause * 3, 2 ) );
		} while ( microtime( true ) < $until );
		error_log( sprintf( 'pressroom: a session could not be opened: another request of the same visitor has kept it for %.0f s', self::most_wait() ) );
		return false;
	}

	/** Gives the lock back, if it is still ours. */
	private function release(): void {
		if ( '' !== $this->locked ) {
			if ( '' === $this->down ) {
				$this->tried( 'be unlocked', function () {
					$this->while_ours( array( 'del', $this->lock_key( $this->locked ) ) );
					return true;
				} );
			}
			$this->locked = '';
		}
	}

	/** One command, carried out only while the lock is ours: EXEC does nothing when the watched lock has changed or expired. */
	private function while_ours( array $command ): bool {
		$key      = $this->lock_key( $this->locked );
		$pipeline = $this->redis->pipeline();
		$pipeline->watch( $key );
		$pipeline->get( $key );
		if ( $this->answers( $pipeline )[1] !== $this->token ) {
			$this->redis->unwatch();
			return false;
		}
		$pipeline = $this->redis->pipeline();
		$pipeline->multi();
		$pipeline->{$command[0]}( ...array_slice( $command, 1 ) );
		$pipeline->exec();
		return array() !== $this->answers( $pipeline )[0];
	}

	private function answers( Redis $pipeline ): array {
		$answers = $pipeline->exec();
		if ( ! is_array( $answers ) || null !== $this->redis->getLastError() ) {
			throw new RedisException( $this->redis->getLastError() ?? 'an answer is missing' );
		}
		return $answers;
	}

	private function lock_key( string $id ): string {
		return $this->prefix . $id . '_LOCK';
	}

	/** PHP's own alphabet of ids; so none names a lock. */
	private static function is_good( string $id ): bool {
		return 1 === preg_match( '/^[A-Za-z0-9,-]{1,256}$/D', $id );
	}

	private static function lifetime(): int {
		return max( 1, (int) ini_get( 'session.gc_maxlifetime' ) );
	}

	/** php-fpm ends a request 5 s after PHP's own limit, whatever a plugin sets that to: one more, and nobody can have it. */
	private static function lock_seconds(): int {
		return ( (int) get_cfg_var( 'max_execution_time' ) ?: 30 ) + 6;
	}

	private static function most_wait(): float {
		return (float) min( self::MOST_WAIT, (int) get_cfg_var( 'max_execution_time' ) ?: 30 );
	}

	// --- The connection --------------------------------------------------------------------------------------------------

	/**
	 * Asks Redis; tries again on a new connection while Redis is being started, at most for PATIENCE.
	 *
	 * @return mixed What `$ask` returns; false: Redis failed or refused, and the log says so.
	 */
	private function tried( string $what, callable $ask ) {
		$until = microtime( true ) + self::PATIENCE;
		while ( '' === $this->down ) {
			try {
				$this->connect( $until );
				$this->redis->clearLastError();
				$answer = $ask();
				if ( null !== $this->redis->getLastError() ) {
					throw new RedisException( $this->redis->getLastError() );
				}
				return $answer;
			} catch ( Throwable $error ) {
				$this->drop();
				$why = trim( $error->getMessage() );
			}
			// Redis's own refusals begin with a word in capitals. It is well, and will say the same again.
			if ( preg_match( '/^(?!LOADING)[A-Z]{2,} /', $why ) ) {
				$hint = preg_match( '/^(OOM|NOPERM|EXECABORT)/', $why ) ? '; `pressroom status` says whether memory for sessions is short' : '';
				error_log( "pressroom: a session could not $what: $why$hint" );
				return false;
			}
			if ( microtime( true ) > $until - 0.1 ) {
				$this->down = $why;
			} else {
				usleep( 20000 );
			}
		}
		error_log( "pressroom: a session could not $what: Redis does not answer: {$this->down}" );
		return false;
	}

	private function connect( float $until ): void {
		if ( null !== $this->redis ) {
			return;
		}
		$left  = max( 0.1, $until - microtime( true ) );
		$redis = new Redis();
		if ( ! @$redis->connect( $this->socket, 0, $left, null, 0, $left ) ) {
			throw new RedisException( 'cannot connect to ' . $this->socket );
		}
		$redis->setOption( Redis::OPT_MAX_RETRIES, 0 );
		$redis->auth( $this->login );
		$redis->setOption( Redis::OPT_READ_TIMEOUT, self::PATIENCE );
		$this->redis = $redis;
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
