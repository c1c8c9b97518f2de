<?php
/**
 * What a value in the object cache means, and when it may be stored.
 *
 * A cache beside a database goes wrong in one way: somebody read the database, somebody else changed it and invalidated the
 * cache, and then the first one stores what he had read. (The "alloptions race" is this, with one key for 200 options.)
 * It cannot happen here:
 *
 * 1. A delete never removes a key; it stores a *tombstone*, a value that is different each time. So every invalidation
 *    changes the key, also of a value that was not there. A tombstone outlives (TOMBSTONE_TTL) any observation that is still
 *    believed (OBSERVATION_TTL).
 * 2. What mirrors the database is stored only by *fill*: compare-and-set (WATCH, MGET, MULTI … EXEC) against what this request
 *    had seen under the key *before* it read the database. If anybody invalidated or filled in between, the key differs and
 *    the fill is dropped. Fills may therefore wait for the end of the request and go together.
 * 3. A value that mirrors the database and is set *after* this request wrote to the database is not stored: two writers could
 *    reach the cache in another order than the database. It becomes a tombstone; the next reader fills. Thus `alloptions` is
 *    only ever stored as somebody read it whole from the database, under rule 2.
 * 4. Inside an SQL transaction nothing is filled (the snapshot may be older than the observation, and own writes are not
 *    committed), and what was invalidated is invalidated again after its end.
 * 5. Invalidations that could not be delivered (Redis away, process killed) leave a mark on disk; see markers.php.
 *
 * Values that do not mirror the database (transients, groups of plugins) are stored at once; after a miss by compare-and-set.
 * Flushing the site or a group is a new generation: a random part of every key's name, so what was stored before is never
 * met again, whatever Redis evicts or forgets.
 *
 * Long because core names one class for all of it, and the rules above hold only together.
 * Missing on purpose: SCAN, KEYS, scripts, FLUSHDB; the site's Redis user may not use them.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

#[AllowDynamicProperties]
class WP_Object_Cache {

	use Pressroom_Cache_Storing;

	/** Seconds: a tombstone's life, the longest trust in an observation, the life of a value without a given one. */
	const TOMBSTONE_TTL   = 180;
	const OBSERVATION_TTL = 60;
	const DEFAULT_TTL     = 604800;

	/** Fills that wait: how many, how many bytes. */
	const MAX_WAITING       = 500;
	const MAX_WAITING_BYTES = 4194304;

	const GENERATION = 'generation';

	/** Groups whose values can be had again from the database. `*_relationships` and `*-queries` belong to them, too. */
	const MIRRORS = array(
		'options'       => true,
		'site-options'  => true,
		'posts'         => true,
		'post_meta'     => true,
		'terms'         => true,
		'term_meta'     => true,
		'users'         => true,
		'user_meta'     => true,
		'userlogins'    => true,
		'useremail'     => true,
		'userslugs'     => true,
		'comment'       => true,
		'comment_meta'  => true,
		'bookmark'      => true,
		'calendar'      => true,
		'sites'         => true,
		'networks'      => true,
		'blog-details'  => true,
		'blog-id-cache' => true,
		'blog-lookup'   => true,
		'blog_meta'     => true,
		'site-details'  => true,
		'global-posts'  => true,
		'themes'        => true,
		'theme_files'   => true,
	);

	/** @var int */
	public $cache_hits = 0;

	/** @var int */
	public $cache_misses = 0;

	/** @var array<string,array<int|string,mixed>> Decoded values: group => id => value. */
	private $cache = array();

	/** @var array<string,string|false> What Redis was seen to hold: name => stored form, false where nothing. */
	private $stored = array();

	/** @var array<string,float> When that was seen, where it is not $began. */
	private $stored_at = array();

	/** @var array<string,int> Names that were asked for and missing, with the number of database writes at that moment. */
	private $missed = array();

	/** @var array<string,string> Tombstones of this request. */
	private $tombstones = array();

	/** @var array<string,array{0:string|false,1:string,2:int}> Fills that wait: name => expected, stored form, seconds. */
	private $waiting = array();

	/** @var int */
	private $waiting_bytes = 0;

	/** @var array<string,true> Names invalidated inside the open transaction. */
	private $uncommitted = array();

	/** @var bool */
	private $in_transaction = false;

	/** @var bool The last query ended the transaction; it runs after our filter. */
	private $transaction_ended = false;

	/** @var int Database writes of this request. */
	private $writes = 0;

	/** @var array<string,true>|null Names whose invalidation could not be delivered; null: everything. */
	private $lost = array();

	/** @var bool Whether close() has run. */
	private $closed = false;

	/** @var bool Whether generation and prefetch have been read. */
	private $started = false;

	/** @var float */
	private $began;

	/** @var string The generation's stored form. */
	private $generation = '';

	/** @var string[] The generation by group; '' is the site's. */
	private $generations = array( '' => '' );

	/** @var array<string,true> */
	private $global_groups = array();

	/** @var array<string,true> */
	private $local_groups = array();

	/** @var bool */
	private $multisite;

	/** @var string */
	private $blog_prefix;

	/** @var Pressroom_Cache_Redis|null */
	private $redis = null;

	/** @var Pressroom_Cache_Markers */
	private $markers;

	/** @var Pressroom_Cache_Prefetch */
	private $prefetch;

	public function __construct() {
		$this->began       = microtime( true );
		$this->multisite   = is_multisite();
		$this->blog_prefix = $this->multisite ? get_current_blog_id() . ':' : '';
		$this->markers     = new Pressroom_Cache_Markers( Pressroom_Cache_Markers::default_directory() );
		$this->prefetch    = new Pressroom_Cache_Prefetch( $_SERVER, 'cli' === PHP_SAPI && empty( $_SERVER['PRESSROOM_TOKEN'] ) );
		if ( Pressroom_Cache_Redis::is_configured() ) {
			$this->redis = new Pressroom_Cache_Redis();
			add_filter( 'query', array( $this, 'before_query' ), PHP_INT_MAX );
		}
	}

	/** For code that looks into `$wp_object_cache->cache`, as core's class allows. */
	public function __get( $name ) {
		return $this->$name ?? null;
	}

	public function __isset( $name ) {
		return isset( $this->$name );
	}

	/** Whether values outlive the request. */
	public function is_persistent(): bool {
		return null !== $this->redis;
	}

	/** Whether Redis answered so far. */
	public function is_up(): bool {
		return null !== $this->redis && $this->redis->is_up();
	}

	/**
	 * The objects of a group this request looked at, or made: what its page may depend on.
	 *
	 * @return array<int,array{0:int|null,1:int}> Blog (null: the only one, or of the network) and number.
	 */
	public function ids( string $group ): array {
		$ids = array();
		foreach ( array_keys( $this->cache[ $group ] ?? array() ) as $id ) {
			$parts = explode( ':', (string) $id, 2 );
			if ( ctype_digit( end( $parts ) ) ) {
				$ids[] = array( isset( $parts[1] ) ? (int) $parts[0] : null, (int) end( $parts ) );
			}
		}
		return $ids;
	}

	/** Whether ids() may be incomplete, because the request flushed. */
	public function has_forgotten(): bool {
		return $this->has_forgotten;
	}

	/** @var bool */
	private $has_forgotten = false;

	/** Round trips to Redis in this request. */
	public function round_trips(): int {
		return null === $this->redis ? 0 : $this->redis->round_trips;
	}

	// --- The API ---------------------------------------------------------------------------------------------------------

	public function get( $key, $group = 'default', $force = false, &$found = null ) {
		if ( ! is_int( $key ) && ! $this->is_valid_key( $key ) ) {
			$found = false;
			return false;
		}
		if ( empty( $group ) ) {
			$group = 'default';
		}
		$id = $this->multisite && ! isset( $this->global_groups[ $group ] ) ? $this->blog_prefix . $key : $key;
		if ( ! $force && isset( $this->cache[ $group ][ $id ] ) ) {
			$found = true;
			++$this->cache_hits;
			$value = $this->cache[ $group ][ $id ];
			return is_object( $value ) ? clone $value : $value;
		}
		$found = $this->look_up( $group, $id, $force );
		if ( ! $found ) {
			++$this->cache_misses;
			return false;
		}
		++$this->cache_hits;
		$value = $this->cache[ $group ][ $id ];
		return is_object( $value ) ? clone $value : $value;
	}

	public function get_multiple( $keys, $group = 'default', $force = false ) {
		if ( empty( $group ) ) {
			$group = 'default';
		}
		$this->read_ahead( (array) $keys, $group, $force );
		$values = array();
		foreach ( (array) $keys as $key ) {
			// What read_ahead() brought is fresh enough for $force.
			$values[ $key ] = $this->get( $key, $group );
		}
		return $values;
	}

	public function add( $key, $data, $group = 'default', $expire = 0 ) {
		if ( wp_suspend_cache_addition() || ! $this->is_valid_key( $key ) ) {
			return false;
		}
		list( $group, $id, $name ) = $this->address( $key, $group );
		if ( $this->has( $group, $id ) ) {
			return false;
		}
		if ( ! $this->is_remote( $group ) ) {
			return $this->keep( $group, $id, $data );
		}
		if ( ! $this->is_mirror( $group ) ) {
			return $this->add_now( $group, $id, $name, $data, $expire );
		}
		$sound = $this->is_sound( $name );
		if ( $this->look_up( $group, $id, false ) ) {
			return false;
		}
		// Not asked for before the database was read: only sound where nobody invalidated it lately.
		$sound = $sound || ( 0 === $this->writes && false === ( $this->stored[ $name ] ?? null ) );
		$this->keep( $group, $id, $data );
		if ( ! $sound ) {
			$this->seen_late[ $name ] = true;
			return true;
		}
		unset( $this->seen_late[ $name ] );
		return $this->fill( $group, $id, $name, $expire );
	}

	public function add_multiple( array $data, $group = '', $expire = 0 ) {
		if ( ! wp_suspend_cache_addition() && $this->is_mirror( $group ? $group : 'default' ) ) {
			foreach ( array_keys( $data ) as $key ) {
				$name = $this->address( $key, $group )[2];
				if ( ! array_key_exists( $name, $this->stored ) ) {
					$this->seen_late[ $name ] = true;
				}
			}
			// One round trip; and what it brings was seen after the database was read, so a tombstone forbids the fill.
			$this->read_ahead( array_keys( $data ), $group ? $group : 'default', false );
		}
		$results = array();
		foreach ( $data as $key => $value ) {
			$results[ $key ] = $this->add( $key, $value, $group, $expire );
		}
		return $results;
	}

	/** @var array<string,true> Names first looked at when a value of the database was already in hand. */
	private $seen_late = array();

	public function set( $key, $data, $group = 'default', $expire = 0 ) {
		if ( ! $this->is_valid_key( $key ) ) {
			return false;
		}
		list( $group, $id, $name ) = $this->address( $key, $group );
		if ( ! $this->is_remote( $group ) ) {
			return $this->keep( $group, $id, $data );
		}
		if ( $expire < 0 ) {
			$this->invalidate( array( $name ) );
			return $this->keep( $group, $id, $data );
		}
		$missed = ( $this->missed[ $name ] ?? -1 ) === $this->writes;
		if ( ! $this->is_mirror( $group ) || ( ! $missed && self::is_stamp( $id ) ) ) {
			$this->keep( $group, $id, $data );
			return $this->store( $group, $id, $name, $expire, $missed );
		}
		if ( $this->is_sound( $name ) ) {
			$this->keep( $group, $id, $data );
			return $this->fill( $group, $id, $name, $expire );
		}
		if ( 0 === $this->writes ) {
			$this->observe( array( $name ) );
			$this->keep( $group, $id, $data );
			if ( false === ( $this->stored[ $name ] ?? null ) ) {
				return $this->fill( $group, $id, $name, $expire );
			}
			$this->seen_late[ $name ] = true;
			return true;
		}
		if ( 'options' !== $group || ! $this->only_grows( $group, $id, $data ) ) {
			$this->invalidate( array( $name ) );
		}
		return $this->keep( $group, $id, $data );
	}

	public function set_multiple( array $data, $group = '', $expire = 0 ) {
		$results = array();
		foreach ( $data as $key => $value ) {
			$results[ $key ] = $this->set( $key, $value, $group, $expire );
		}
		return $results;
	}

	public function replace( $key, $data, $group = 'default', $expire = 0 ) {
		if ( ! $this->is_valid_key( $key ) ) {
			return false;
		}
		list( $group, $id ) = $this->address( $key, $group );
		if ( ! $this->look_up( $group, $id, $this->is_remote( $group ) && ! $this->is_mirror( $group ) ) ) {
			return false;
		}
		return $this->set( $key, $data, $group, $expire );
	}

	public function delete( $key, $group = 'default', $deprecated = false ) {
		return $this->is_valid_key( $key ) && $this->delete_multiple( array( $key ), $group )[ $key ];
	}

	public function delete_multiple( array $keys, $group = '' ) {
		$results = array();
		$names   = array();
		foreach ( $keys as $key ) {
			if ( ! $this->is_valid_key( $key ) ) {
				$results[ $key ] = false;
				continue;
			}
			list( $group, $id, $name ) = $this->address( $key, $group );
			$results[ $key ]           = $this->has( $group, $id );
			$names[ $name ]            = $key;
			unset( $this->cache[ $group ][ $id ] );
		}
		if ( $names && $this->is_remote( $group ) ) {
			foreach ( $this->invalidate( array_keys( $names ) ) as $name => $existed ) {
				$results[ $names[ $name ] ] = $results[ $names[ $name ] ] || $existed;
			}
		}
		return $results;
	}

	public function incr( $key, $offset = 1, $group = 'default' ) {
		if ( ! $this->is_valid_key( $key ) ) {
			return false;
		}
		list( $group, $id, $name ) = $this->address( $key, $group );
		$offset                    = (int) $offset;
		$remote                    = $this->is_remote( $group );
		for ( $attempt = 0; $attempt < 100; ++$attempt ) {
			if ( ! $this->look_up( $group, $id, $remote ) ) {
				return false;
			}
			$old    = $this->cache[ $group ][ $id ];
			$result = max( 0, ( is_numeric( $old ) ? $old : 0 ) + $offset );
			if ( ! $remote || ! $this->is_up() ) {
				break;
			}
			if ( $this->compare_and_set( array( $name => array( $this->stored[ $name ], $this->encode( $result ), 0 ) ) ) ) {
				break;
			}
			usleep( random_int( 0, 300 ) ); // Somebody else counts, too.
		}
		$this->cache[ $group ][ $id ] = $result;
		return $result;
	}

	public function decr( $key, $offset = 1, $group = 'default' ) {
		return $this->incr( $key, - (int) $offset, $group );
	}

	public function flush() {
		$this->forget();
		$this->cache         = array();
		$this->has_forgotten = true;
		if ( null === $this->redis ) {
			return true;
		}
		$this->start();
		return $this->begin_generation( '' );
	}

	public function flush_runtime() {
		$this->flush_waiting();
		$this->forget();
		$this->cache         = array();
		$this->has_forgotten = true;
		return true;
	}

	public function flush_group( $group ) {
		unset( $this->cache[ $group ] );
		if ( ! $this->is_remote( $group ) ) {
			return true;
		}
		$this->start();
		return $this->begin_generation( (string) $group );
	}

	public function add_global_groups( $groups ) {
		$this->global_groups += array_fill_keys( (array) $groups, true );
	}

	public function add_non_persistent_groups( $groups ) {
		$this->local_groups += array_fill_keys( (array) $groups, true );
	}

	public function switch_to_blog( $blog_id ) {
		$this->blog_prefix = $this->multisite ? (int) $blog_id . ':' : '';
	}

	/** Deprecated in core since 3.5. */
	public function reset() {
		foreach ( array_keys( $this->cache ) as $group ) {
			if ( ! isset( $this->global_groups[ $group ] ) ) {
				unset( $this->cache[ $group ] );
			}
		}
	}

	public function stats() {
		echo '<p><strong>Cache Hits:</strong> ' . (int) $this->cache_hits . '<br /><strong>Cache Misses:</strong> ' . (int) $this->cache_misses
			. '<br /><strong>Round trips to Redis:</strong> ' . (int) $this->round_trips() . '</p>';
	}

	/** The end of the request: what waits is stored, in one go; what was learnt about this kind of request, too. */
	public function close() {
		if ( $this->is_remote( '' ) && $this->started ) {
			$this->end_transaction();
			$lists = $this->closed ? array() : $this->prefetch->lists();
			$this->flush_waiting();
			$commands = array();
			foreach ( $lists as $key => $list ) {
				$commands[] = array( 'set', PRESSROOM_REDIS_PREFIX . $key, $list, array( 'ex' => Pressroom_Cache_Prefetch::LIFETIME ) );
			}
			if ( $commands ) {
				$this->redis->send( $commands );
			}
		}
		$this->closed = true;
		$this->end_writing();
		return true;
	}

	// --- What the database is told ---------------------------------------------------------------------------------------

	/** Filter `query`, before each SQL statement runs. */
	public function before_query( $sql ) {
		$word = strtoupper( substr( ltrim( (string) $sql, " \t\r\n(" ), 0, 6 ) );
		if ( $this->transaction_ended ) {
			$this->end_transaction();
		}
		switch ( $word ) {
			case 'SELECT':
			case 'SHOW F':
			case 'SHOW T':
			case 'SHOW V':
			case 'DESCRI':
			case 'EXPLAI':
				return $sql;
			case 'START ':
			case 'BEGIN':
			case 'BEGIN;':
				$this->in_transaction = true;
				return $sql;
			case 'COMMIT':
				$this->transaction_ended = true;
				return $sql;
			case 'ROLLBA':
				$this->transaction_ended = false === stripos( $sql, ' TO ' );
				return $sql;
		}
		if ( preg_match( '/^\s*SET\s+(?:SESSION\s+|@@)?autocommit\s*=\s*(\w+)/i', $sql, $match ) ) {
			$this->in_transaction    = in_array( strtolower( $match[1] ), array( '0', 'off', 'false' ), true );
			$this->transaction_ended = ! $this->in_transaction;
			return $sql;
		}
		if ( preg_match( '~^(?:\s|/\*.*?\*/|\()*(?:SELECT|SHOW|SET|USE|SAVEPOINT|RELEASE|LOCK|UNLOCK|DO|KILL|CHECK|ANALYZE)\b~is', $sql ) ) {
			return $sql;
		}
		++$this->writes;
		if ( ! $this->markers->is_writing() ) {
			$this->markers->begin_writing();
			if ( $this->closed || 1 === $this->writes ) {
				register_shutdown_function( array( $this, 'end_writing' ) );
			}
		}
		return $sql;
	}

	/** The last word about this process's writes; a fatal error may have come between a commit and its invalidation. */
	public function end_writing(): void {
		if ( ! $this->closed ) {
			return;
		}
		if ( array() !== $this->lost ) {
			$this->markers->lost( null === $this->lost ? null : array_keys( $this->lost ) );
		}
		$error = error_get_last();
		$fatal = $error && ( $error['type'] & ( E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR | E_RECOVERABLE_ERROR ) );
		$this->markers->end_writing( ! $fatal );
	}

	/** After COMMIT or ROLLBACK: whatever was invalidated inside the transaction may have been filled from before it. */
	private function end_transaction(): void {
		if ( ! $this->in_transaction && ! $this->transaction_ended ) {
			return;
		}
		$this->in_transaction    = false;
		$this->transaction_ended = false;
		$names                   = array_keys( $this->uncommitted );
		$this->uncommitted       = array();
		foreach ( $names as $name ) {
			list( $group, $id ) = explode( "\x1f", $name, 2 );
			unset( $this->cache[ $group ][ $id ] );
		}
		if ( $names ) {
			$this->invalidate( $names );
		}
	}

	// --- Looking up ------------------------------------------------------------------------------------------------------

	/** Brings a value into $cache. $fresh: not older than this call. */
	private function look_up( string $group, $id, bool $fresh ): bool {
		if ( ! $fresh && $this->has( $group, $id ) ) {
			return true;
		}
		if ( ! $this->is_remote( $group ) ) {
			return $this->has( $group, $id );
		}
		$this->start();
		$name = $group . "\x1f" . $id;
		if ( ( $fresh || ! array_key_exists( $name, $this->stored ) ) && ! $this->observe( array( $name ) ) ) {
			return $this->has( $group, $id );
		}
		$stored = $this->stored[ $name ] ?? false;
		$this->prefetch->used( $name, (int) strlen( (string) $stored ) );
		if ( $fresh && $this->has( $group, $id ) ) {
			$ours = isset( $this->waiting[ $name ] ) ? $this->waiting[ $name ][0] : ( $this->tombstones[ $name ] ?? null );
			if ( $stored === $ours ) {
				return true; // Nobody else has touched it; our copy is the newer one.
			}
			unset( $this->waiting[ $name ] );
		}
		if ( false === $stored || 'T' === $stored[0] || ! $this->decode( $stored, $value ) ) {
			unset( $this->cache[ $group ][ $id ] );
			$this->missed[ $name ] = $this->writes;
			return false;
		}
		unset( $this->missed[ $name ] );
		$this->cache[ $group ][ $id ] = $value;
		return true;
	}

	/** Fetches at once what get_multiple() or add_multiple() will ask for. */
	private function read_ahead( array $keys, string $group, bool $fresh ): void {
		if ( ! $this->is_remote( $group ) ) {
			return;
		}
		$this->start();
		$names = array();
		foreach ( $keys as $key ) {
			if ( is_int( $key ) || ( is_string( $key ) && '' !== trim( $key ) ) ) {
				list( , $id, $name ) = $this->address( $key, $group );
				if ( $fresh ? ! isset( $this->waiting[ $name ] ) : ! array_key_exists( $name, $this->stored ) && ! $this->has( $group, $id ) ) {
					$names[] = $name;
					$ids[]   = $id;
				}
			}
		}
		if ( $names && $this->observe( $names ) && $fresh ) {
			foreach ( $names as $index => $name ) {
				if ( ( $this->stored[ $name ] ?? false ) !== ( $this->tombstones[ $name ] ?? null ) ) {
					unset( $this->cache[ $group ][ $ids[ $index ] ] );
				}
			}
		}
	}

	/** The request's first word with Redis: generation, and all that requests of this kind need. */
	private function start(): void {
		if ( $this->started || null === $this->redis ) {
			return;
		}
		$this->started = true;
		$abandoned     = $this->markers->abandoned();
		$answers       = $this->redis->send( array( array( 'mget', $this->plain_keys( array_merge( array( self::GENERATION ), $this->prefetch->keys() ) ) ) ) );
		if ( null === $answers ) {
			return;
		}
		$this->adopt( array_shift( $answers[0] ) );
		if ( $abandoned ) {
			$this->make_good( $abandoned );
		}
		$names = $this->prefetch->expect( $answers[0] );
		if ( $names ) {
			$this->observe( $names );
			$this->stored_at = array();
		}
	}

	/** @param array<string,string[]|null> $abandoned Marks, with the names whose invalidation was lost; null: nobody knows which. */
	private function make_good( array $abandoned ): void {
		if ( in_array( null, $abandoned, true ) ) {
			$made_good = $this->begin_generation( '' );
		} else {
			$this->invalidate( array_unique( array_merge( ...array_values( $abandoned ) ) ) );
			$made_good = $this->is_up();
		}
		if ( $made_good ) {
			$this->markers->forget( array_keys( $abandoned ) );
		}
	}

	/**
	 * Reads stored forms. Whoever holds an old generation finds out here.
	 *
	 * @param string[] $names
	 */
	private function observe( array $names ): bool {
		$this->start();
		for ( $attempt = 0; $attempt < 2; ++$attempt ) {
			$answers = $this->redis->send( array( array( 'mget', $this->keys( $names ) ) ) );
			if ( null === $answers ) {
				return false;
			}
			if ( array_shift( $answers[0] ) === $this->generation ) {
				break;
			}
			$this->refresh_generation();
		}
		$now = microtime( true );
		foreach ( $names as $index => $name ) {
			$this->stored[ $name ]    = $answers[0][ $index ];
			$this->stored_at[ $name ] = $now;
		}
		return true;
	}

	// --- Names and forms -------------------------------------------------------------------------------------------------

	/** @return array{0:string,1:int|string,2:string} Group, id with the blog's prefix, name. */
	private function address( $key, $group ): array {
		if ( empty( $group ) ) {
			$group = 'default';
		}
		$id = $this->multisite && ! isset( $this->global_groups[ $group ] ) ? $this->blog_prefix . $key : $key;
		return array( $group, $id, $group . "\x1f" . $id );
	}

	/**
	 * @param string[] $names
	 * @return string[] The generation's key, then those of the names.
	 */
	private function keys( array $names ): array {
		$site = PRESSROOM_REDIS_PREFIX . $this->generations[''];
		$keys = array( PRESSROOM_REDIS_PREFIX . self::GENERATION );
		$any  = count( $this->generations ) > 1;
		foreach ( $names as $name ) {
			$group  = $any ? $this->generations[ strstr( $name, "\x1f", true ) ] ?? '' : '';
			$keys[] = $site . $group . ':' . $name;
		}
		return $keys;
	}

	/**
	 * @param string[] $names
	 * @return string[]
	 */
	private function plain_keys( array $names ): array {
		foreach ( $names as $index => $name ) {
			$names[ $index ] = PRESSROOM_REDIS_PREFIX . $name;
		}
		return $names;
	}

	private function is_remote( string $group ): bool {
		return null !== $this->redis && ! isset( $this->local_groups[ $group ] );
	}

	private function is_mirror( string $group ): bool {
		return isset( self::MIRRORS[ $group ] ) || '_relationships' === substr( $group, -14 ) || '-queries' === substr( $group, -8 );
	}

	/** A stamp (`last_changed`) makes other keys worthless by being new; it is right in any order. */
	private static function is_stamp( $id ): bool {
		return is_string( $id ) && false !== strpos( $id, 'last_changed' );
	}

	/** `notoptions` with one more name is news for this request only, once it wrote. */
	private function only_grows( string $group, $id, $data ): bool {
		$old = $this->cache[ $group ][ $id ] ?? null;
		return 'notoptions' === substr( (string) $id, -10 ) && is_array( $old ) && is_array( $data ) && ! array_diff_key( $old, $data );
	}

	private function has( string $group, $id ): bool {
		return isset( $this->cache[ $group ] ) && ( isset( $this->cache[ $group ][ $id ] ) || array_key_exists( $id, $this->cache[ $group ] ) );
	}

	private function keep( string $group, $id, $data ): bool {
		$this->cache[ $group ][ $id ] = is_object( $data ) ? clone $data : $data;
		return true;
	}

	/** The stored form: integers as digits, everything else by igbinary (which begins with a zero byte). Null: cannot be stored. */
	private function encode( $value ): ?string {
		if ( is_int( $value ) ) {
			return (string) $value;
		}
		try {
			return igbinary_serialize( $value );
		} catch ( Throwable $error ) {
			return null;
		}
	}

	private function decode( string $stored, &$value ): bool {
		if ( "\0" !== $stored[0] ) {
			$value = (int) $stored;
			return (string) $value === $stored;
		}
		try {
			$value = igbinary_unserialize( $stored );
			return true;
		} catch ( Throwable $error ) {
			return false;
		}
	}

	/** As core's: complains about empty and impossible keys. */
	private function is_valid_key( $key ): bool {
		if ( is_int( $key ) || ( is_string( $key ) && '' !== trim( $key ) ) ) {
			return true;
		}
		if ( ! function_exists( '__' ) ) {
			wp_load_translations_early();
		}
		$message = is_string( $key )
			? __( 'Cache key must not be an empty string.' )
			/* translators: %s: The type of the given cache key. */
			: sprintf( __( 'Cache key must be integer or non-empty string, %s given.' ), gettype( $key ) );
		_doing_it_wrong( __CLASS__ . '::' . debug_backtrace( DEBUG_BACKTRACE_IGNORE_ARGS, 2 )[1]['function'], $message, '6.1.0' );
		return false;
	}
}
