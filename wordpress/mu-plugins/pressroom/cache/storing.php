<?php
/**
 * How values, tombstones and generations reach Redis: the part of WP_Object_Cache that writes.
 *
 * A trait, because it shares all state with the part that reads; the rules it follows are at the head of object-cache.php.
 *
 * Always: every write names the generation it believes in and checks it in the same round trip.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

trait Pressroom_Cache_Storing {

	/** Whether what this request knows of a name is older than the database read that a new value comes from. */
	private function is_sound( string $name ): bool {
		if ( isset( $this->seen_late[ $name ] ) ) {
			return false;
		}
		return ( $this->missed[ $name ] ?? -1 ) === $this->writes || ( 0 === $this->writes && array_key_exists( $name, $this->stored ) );
	}

	/** Puts a value in line for compare-and-set. */
	private function fill( string $group, $id, string $name, int $expire ): bool {
		if ( $this->in_transaction || ! array_key_exists( $name, $this->stored ) || ! $this->is_up() ) {
			return true;
		}
		$form = $this->encode( $this->cache[ $group ][ $id ] );
		if ( null === $form ) {
			return true;
		}
		$expected               = $this->waiting[ $name ][0] ?? $this->stored[ $name ];
		$this->waiting[ $name ] = array( $expected, $form, $expire > 0 ? $expire : self::DEFAULT_TTL );
		$this->waiting_bytes   += strlen( $form );
		if ( $this->closed || count( $this->waiting ) >= self::MAX_WAITING || $this->waiting_bytes > self::MAX_WAITING_BYTES ) {
			$this->flush_waiting();
		}
		return true;
	}

	private function flush_waiting(): void {
		$oldest = microtime( true ) - self::OBSERVATION_TTL;
		$fills  = array();
		foreach ( $this->waiting as $name => $fill ) {
			if ( ( $this->stored_at[ $name ] ?? $this->began ) > $oldest ) {
				$fills[ $name ] = $fill;
			}
		}
		$this->waiting       = array();
		$this->waiting_bytes = 0;
		if ( $fills ) {
			$this->compare_and_set( $fills );
		}
	}

	/**
	 * Stores each value whose key still holds what was expected, and none if anything changes meanwhile (then once more).
	 *
	 * @param array<string,array{0:string|false,1:string,2:int}> $fills Seconds 0: as long as the old value.
	 */
	private function compare_and_set( array $fills ): bool {
		for ( $attempt = 0; $attempt < 2; ++$attempt ) {
			$names   = array_keys( $fills );
			$keys    = $this->keys( $names );
			$answers = $this->redis->send( array( array( 'watch', $keys ), array( 'mget', $keys ) ) );
			if ( null === $answers ) {
				return false;
			}
			$current = $answers[1];
			$sets    = array();
			if ( array_shift( $current ) === $this->generation ) {
				foreach ( $names as $index => $name ) {
					list( $expected, $form, $seconds ) = $fills[ $name ];
					if ( $current[ $index ] === $expected ) {
						$sets[ $name ] = array( 'set', $keys[ $index + 1 ], $form, $seconds ? array( 'ex' => $seconds ) : array( 'keepttl' ) );
					}
				}
			}
			if ( array() === $sets ) {
				$this->redis->send( array( array( 'unwatch' ) ) );
				return false;
			}
			$answers = $this->redis->send( array( array( 'transaction', array_values( $sets ) ) ) );
			if ( null === $answers ) {
				return false;
			}
			if ( $answers[0] ) {
				foreach ( array_keys( $sets ) as $name ) {
					$this->stored[ $name ]    = $fills[ $name ][1];
					$this->stored_at[ $name ] = microtime( true );
				}
				return true;
			}
			$fills = array_intersect_key( $fills, $sets );
		}
		return false;
	}

	/** Stores a value that is not a mirror of the database, or a stamp that invalidates others: now. */
	private function store( string $group, $id, string $name, int $expire, bool $after_miss ): bool {
		$form = $this->encode( $this->cache[ $group ][ $id ] );
		if ( null === $form ) {
			$this->invalidate( array( $name ) );
			return true;
		}
		unset( $this->missed[ $name ], $this->waiting[ $name ] );
		$seconds = $expire > 0 ? $expire : self::DEFAULT_TTL;
		if ( $after_miss && array_key_exists( $name, $this->stored ) ) {
			if ( ! $this->compare_and_set( array( $name => array( $this->stored[ $name ], $form, $seconds ) ) ) && ! $this->is_up() ) {
				$this->note_lost( array( $name ) );
			}
			return true;
		}
		if ( $this->in_transaction && $this->is_mirror( $group ) ) {
			$this->uncommitted[ $name ] = true;
		}
		return null !== $this->command( $name, array( 'set', null, $form, array( 'ex' => $seconds ) ) );
	}

	/** Adds a value atomically: plugins build locks of it. */
	private function add_now( string $group, $id, string $name, $data, int $expire ): bool {
		$this->start();
		$form = $this->encode( $data );
		if ( null === $form ) {
			return $this->keep( $group, $id, $data );
		}
		$seconds = $expire > 0 ? $expire : self::DEFAULT_TTL;
		$added   = $this->command( $name, array( 'set', null, $form, array( 'nx', 'ex' => $seconds ) ) );
		if ( false === $added ) {
			if ( $this->look_up( $group, $id, true ) ) {
				return false;
			}
			$stored = $this->stored[ $name ] ?? false;
			if ( $this->is_up() && ! $this->compare_and_set( array( $name => array( $stored, $form, $seconds ) ) ) && $this->is_up() ) {
				return false;
			}
		}
		return $this->keep( $group, $id, $data );
	}

	/** Runs one command on a name in the current generation; null when Redis is away. $command[1] is the key's place. */
	private function command( string $name, array $command ) {
		$this->start();
		for ( $attempt = 0; $attempt < 2; ++$attempt ) {
			$keys       = $this->keys( array( $name ) );
			$command[1] = $keys[1];
			$answers    = $this->redis->send( array( array( 'get', $keys[0] ), $command ) );
			if ( null === $answers ) {
				$this->note_lost( array( $name ) );
				return null;
			}
			unset( $this->stored[ $name ], $this->tombstones[ $name ] );
			if ( $answers[0] === $this->generation ) {
				break;
			}
			$this->refresh_generation();
		}
		return $answers[1];
	}

	/**
	 * Makes every stored and every future outdated value of these names worthless.
	 *
	 * @param string[] $names
	 * @return array<string,bool> Whether there was a value.
	 */
	private function invalidate( array $names ): array {
		$this->start();
		$existed = array();
		foreach ( array_chunk( $names, self::MAX_WAITING ) as $chunk ) {
			for ( $attempt = 0; $attempt < 2; ++$attempt ) {
				$keys     = $this->keys( $chunk );
				$commands = array( array( 'get', $keys[0] ) );
				$now      = microtime( true );
				foreach ( $chunk as $index => $name ) {
					$tombstone = 'T' . bin2hex( random_bytes( 8 ) );

					$this->stored[ $name ]     = $tombstone;
					$this->stored_at[ $name ]  = $now;
					$this->tombstones[ $name ] = $tombstone;
					$this->missed[ $name ]     = $this->writes;
					unset( $this->waiting[ $name ], $this->seen_late[ $name ] );
					if ( $this->in_transaction ) {
						$this->uncommitted[ $name ] = true;
					}
					$commands[] = array( 'getRange', $keys[ $index + 1 ], 0, 0 );
					$commands[] = array( 'set', $keys[ $index + 1 ], $tombstone, array( 'ex' => self::TOMBSTONE_TTL ) );
				}
				$answers = $this->redis->send( $commands );
				if ( null === $answers ) {
					$this->note_lost( $chunk );
					return $existed;
				}
				foreach ( $chunk as $index => $name ) {
					$first            = $answers[ 2 * $index + 1 ];
					$existed[ $name ] = '' !== (string) $first && 'T' !== $first;
				}
				if ( $answers[0] === $this->generation ) {
					break;
				}
				$this->refresh_generation();
			}
		}
		return $existed;
	}

	/** @param string[]|null $names Null: everything. */
	private function note_lost( ?array $names ): void {
		$this->lost = null === $names || null === $this->lost ? null : $this->lost + array_fill_keys( $names, true );
		$this->markers->lost( $names );
	}

	// --- Generations -----------------------------------------------------------------------------------------------------

	/** Makes a new generation of the site (''), or of a group. */
	private function begin_generation( string $group ): bool {
		$key = PRESSROOM_REDIS_PREFIX . self::GENERATION;
		for ( $attempt = 0; $attempt < 4; ++$attempt ) {
			$generations = array( '' => $this->unique() );
			$commands    = array( array( 'set', $key, (string) json_encode( $generations ) ) );
			if ( '' !== $group ) {
				$answers = $this->redis->send( array( array( 'watch', array( $key ) ), array( 'get', $key ) ) );
				$current = $answers ? json_decode( (string) $answers[1], true ) : null;
				if ( is_array( $current ) ) {
					$generations = array_merge( $current, array( $group => $this->unique() ) );
				}
				$commands = array( array( 'transaction', array( array( 'set', $key, (string) json_encode( $generations ) ) ) ) );
			}
			$answers = $this->redis->send( $commands );
			if ( null === $answers ) {
				$this->note_lost( null );
				return false;
			}
			if ( $answers[0] ) {
				$this->adopt( (string) json_encode( $generations ) );
				return true;
			}
		}
		return $this->begin_generation( '' );
	}

	private function refresh_generation(): void {
		$answers = $this->redis->send( array( array( 'get', PRESSROOM_REDIS_PREFIX . self::GENERATION ) ) );
		if ( null !== $answers ) {
			$this->adopt( $answers[0] );
		}
	}

	/** @param string|false $stored The generation as Redis has it; a missing one is made, never guessed. */
	private function adopt( $stored ): void {
		if ( ! is_string( $stored ) || ! is_array( json_decode( $stored, true ) ) ) {
			$key     = PRESSROOM_REDIS_PREFIX . self::GENERATION;
			$new     = (string) json_encode( array( '' => $this->unique() ) );
			$answers = $this->redis->send( array( array( 'set', $key, $new, array( 'nx' ) ), array( 'get', $key ) ) );
			$stored  = $answers ? (string) $answers[1] : $new;
		}
		if ( $stored !== $this->generation ) {
			$this->forget();
			$this->generation  = $stored;
			$this->generations = (array) json_decode( $stored, true );
		}
	}

	/** Forgets what Redis was seen to hold. */
	private function forget(): void {
		$this->stored        = array();
		$this->stored_at     = array();
		$this->missed        = array();
		$this->tombstones    = array();
		$this->seen_late     = array();
		$this->waiting       = array();
		$this->waiting_bytes = 0;
	}

	private function unique(): string {
		return rtrim( strtr( base64_encode( random_bytes( 9 ) ), '+/', '-_' ), '=' );
	}
}
