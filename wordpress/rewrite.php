<?php
/**
 * Moves a copied database from one address to another: `php rewrite.php [ROOT]`, with one JSON object on standard input.
 *
 * {"from": ["https://shop.example.com", …], "to": "https://staging.example.com:8443", "dry_run": false, "paths": [["/old/dir", "/new/dir"]],
 * "tables": null|[…], "database": …}; the last four are optional. `paths` are directories, `tables` whole names (default: all with the site's prefix),
 * `database` another one than the site's own, which its user may change.
 *
 * Prints one JSON object: "tables" (per table, how many rows could contain something and were "looked" at, how many "changed"),
 * "looked", "changed", "milliseconds", "dry_run"; "broken": what was left as it is (table, key, column, reason), of which
 * "broken_count" says the number if they are too many to list; "unmapped": blogs of a network that have a domain of their own. Exit
 * status 0; 1 bad input; 2 failure, with {"error": …}.
 *
 * It speaks to the database alone: no WordPress, no plugin, no hook. So the object cache knows nothing of it and must be empty or flushed.
 *
 * Always: a second run changes nothing, and one that was interrupted is finished by the next. A batch is one transaction. Blogs and
 * then the network come last, so the database says itself that it was not finished.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

if ( 'cli' !== PHP_SAPI ) {
	exit( 1 );
}

require __DIR__ . '/addresses.php';
require __DIR__ . '/serialised.php';
require __DIR__ . '/values.php';
require __DIR__ . '/database.php';

function pressroom_rewrite_end( array $result, int $status ): void {
	fwrite( STDOUT, json_encode( $result, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE ) . "\n" );
	exit( $status );
}

/** Walks the tables of a site. */
final class Pressroom_Rewrite {

	/** Rows of a batch, and their bytes unless one row has more. */
	const ROWS  = 200;
	const BYTES = 4 << 20;

	/** A table without a key is read at once, if it can be. */
	const KEYLESS_BYTES = 64 << 20;

	/** How many things that were left alone are listed. */
	const LISTED = 1000;

	/** Columns that hold no address, or shall not change: a post's guid is its name for feed readers. */
	const LEFT_OUT = array(
		'posts' => array( 'guid' ),
		'users' => array( 'user_pass', 'user_activation_key' ),
	);

	/** What a database says when a row cannot be as it should: doubled, too long, against a check, not writable in the column's charset. */
	const REFUSALS = array( 1062, 1366, 1406, 3819, 4025 );

	/** @var mysqli */
	private $database;

	/** @var string */
	private $prefix;

	/** @var Pressroom_Addresses */
	private $addresses;

	/** @var Pressroom_Values */
	private $values;

	/** @var bool */
	private $is_dry;

	/** @var int */
	private $packet;

	/** @var array */
	private $result = array(
		'tables'       => array(),
		'looked'       => 0,
		'changed'      => 0,
		'broken'       => array(),
		'broken_count' => 0,
		'unmapped'     => array(),
	);

	public function __construct( mysqli $database, string $prefix, Pressroom_Addresses $addresses, bool $is_dry ) {
		$this->database  = $database;
		$this->prefix    = $prefix;
		$this->addresses = $addresses;
		$this->is_dry    = $is_dry;
		// A value that does not fit must not be cut, and the configuration of a server must not change how we quote.
		$database->query( "SET SESSION sql_mode = 'STRICT_ALL_TABLES'" );
		$this->packet = (int) $this->rows( 'SELECT @@max_allowed_packet AS size' )[0]['size'];
	}

	/** @param string[]|null $wished Tables; null: all. */
	public function run( ?array $wished ): array {
		$tables = $this->tables();
		foreach ( array_diff( $wished ?? array(), $tables ) as $unknown ) {
			throw new InvalidArgumentException( "there is no table `$unknown` with the prefix `$this->prefix`" );
		}
		$this->learn_blogs( $tables );
		$this->values = new Pressroom_Values( $this->addresses );
		foreach ( null === $wished ? $tables : array_intersect( $tables, $wished ) as $table ) {
			$this->table( $table );
		}
		return $this->result;
	}

	/** @return string[] Those of the blogs and of the network are the last. */
	private function tables(): array {
		$like   = $this->quoted( addcslashes( $this->prefix, '_%\\' ) . '%' );
		$tables = array_column( $this->rows( "SELECT table_name AS t FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' AND table_name LIKE BINARY $like ORDER BY table_name" ), 't' );
		$last   = array_intersect( array( "{$this->prefix}blogs", "{$this->prefix}site" ), $tables );
		return array_values( array_merge( array_diff( $tables, $last ), $last ) );
	}

	/** Blogs below the network's host have addresses that move with it; no two of them may become the same. */
	private function learn_blogs( array $tables ): void {
		$table = "{$this->prefix}blogs";
		if ( ! in_array( $table, $tables, true ) ) {
			return;
		}
		$blogs = $this->rows( 'SELECT blog_id, domain, path FROM ' . self::name( $table ) . ' ORDER BY blog_id' );
		$taken = array();
		foreach ( $blogs as $blog ) {
			$domain = $this->addresses->domain( $blog['domain'] );
			$place  = strtolower( ( $domain ?? $blog['domain'] ) . $blog['path'] );
			if ( isset( $taken[ $place ] ) ) {
				throw new InvalidArgumentException( "blogs {$taken[ $place ]} and {$blog['blog_id']} would both be at `$place`" );
			}
			$taken[ $place ] = $blog['blog_id'];
			if ( null === $domain ) {
				$this->result['unmapped'][] = array(
					'blog'   => (int) $blog['blog_id'],
					'domain' => $blog['domain'],
					'path'   => $blog['path'],
					'reason' => 'its domain is neither an old one nor below',
				);
			}
		}
		$this->addresses->know_blogs( array_column( $blogs, 'domain' ) );
	}

	// --- A table ---------------------------------------------------------------------------------------------------------

	private function table( string $table ): void {
		$began   = microtime( true );
		$columns = $this->columns( $table );
		$texts   = array_keys( array_filter( array_column( $columns, 'is_text', 'name' ) ) );
		$count   = array( 'looked' => 0, 'changed' => 0 );
		if ( $texts ) {
			$filter = $this->filter( $table, $columns );
			$key    = $this->key( $table );
			$count  = $key ? $this->walk( $table, $columns, $key, $filter ) : $this->sweep( $table, $columns, $filter );
		}
		$this->result['tables'][ $table ] = $count + array( 'milliseconds' => (int) round( 1000 * ( microtime( true ) - $began ) ) );
		$this->result['looked']          += $count['looked'];
		$this->result['changed']         += $count['changed'];
	}

	/** The columns of a table; `is_text`: it may contain an address. */
	private function columns( string $table ): array {
		$left_out = self::LEFT_OUT[ preg_replace( '/^' . preg_quote( $this->prefix, '/' ) . '(\d+_)?/', '', $table ) ] ?? array();
		$shortest = min( array_map( static function ( $pieces ) {
			return strlen( implode( '-', $pieces ) );
		}, $this->addresses->needles() ) );
		$columns  = array();
		foreach ( $this->rows( 'SELECT column_name AS n, data_type AS t, character_maximum_length AS l, collation_name AS c, extra AS e FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ' . $this->quoted( $table ) . ' ORDER BY ordinal_position' ) as $column ) {
			$is_string    = 1 === preg_match( '/char|text|blob|binary|^json$/i', $column['t'] );
			$is_generated = false !== stripos( $column['e'], 'generated' ) && false === stripos( $column['e'], 'default_generated' );
			$columns[]    = array(
				'name'      => $column['n'],
				'is_text'   => $is_string && ! $is_generated && (float) $column['l'] >= $shortest && ! in_array( $column['n'], $left_out, true ),
				'is_binary' => null === $column['c'] && $is_string,
				'is_exact'  => null !== $column['c'] && '_bin' === substr( $column['c'], -4 ),
				'is_stamp'  => false !== stripos( $column['e'], 'on update' ),
			);
		}
		return $columns;
	}

	/** @return string[] The columns of the primary key, else of one that is unique and has no NULL. */
	private function key( string $table ): array {
		$keys = array();
		foreach ( $this->rows( 'SELECT index_name AS i, column_name AS n, nullable AS e, sub_part AS s FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = ' . $this->quoted( $table ) . " AND non_unique = 0 ORDER BY index_name = 'PRIMARY' DESC, index_name, seq_in_index" ) as $part ) {
			$keys[ $part['i'] ][] = 'YES' === $part['e'] || null !== $part['s'] ? null : $part['n'];
		}
		foreach ( $keys as $columns ) {
			if ( ! in_array( null, $columns, true ) ) {
				return $columns;
			}
		}
		return array();
	}

	/** What a row must have to be worth a look. */
	private function filter( string $table, array $columns ): string {
		$likes = array();
		foreach ( $columns as $column ) {
			if ( ! $column['is_text'] ) {
				continue;
			}
			$name = self::name( $column['name'] );
			if ( $column['is_binary'] ) {
				$name = "CONVERT($name USING latin1)";
			} elseif ( $column['is_exact'] ) {
				$name = "CONVERT($name USING utf8mb4) COLLATE utf8mb4_general_ci";
			}
			foreach ( $this->addresses->needles() as $pieces ) {
				$likes[] = "$name LIKE '%" . $this->database->real_escape_string( implode( '%', array_map( static function ( $piece ) {
					return addcslashes( $piece, '_%\\' );
				}, $pieces ) ) ) . "%'";
			}
		}
		$filter = '(' . implode( ' OR ', $likes ) . ')';
		return "{$this->prefix}usermeta" === $table ? "$filter AND meta_key <> 'session_tokens'" : $filter;
	}

	/** Goes through a table in the order of its key. */
	private function walk( string $table, array $columns, array $key, string $filter ): array {
		$name   = self::name( $table );
		$keys   = implode( ', ', array_map( array( self::class, 'name' ), $key ) );
		$binary = array_column( $columns, 'is_binary', 'name' );
		$read   = array_unique( array_merge( $key, array_keys( array_filter( array_column( $columns, 'is_text', 'name' ) ) ), array_intersect( array( 'option_name', 'meta_key' ), array_column( $columns, 'name' ) ) ) );
		$read   = implode( ', ', array_map( array( self::class, 'name' ), $read ) );
		$size   = implode( ' + ', array_map( static function ( $column ) {
			return 'COALESCE(LENGTH(' . self::name( $column['name'] ) . '), 0)';
		}, array_filter( $columns, static function ( $column ) {
			return $column['is_text'];
		} ) ) );
		$count  = array( 'looked' => 0, 'changed' => 0 );
		$behind = '';
		do {
			// Keys first: how much a batch may hold is a question of bytes.
			$found = $this->rows( "SELECT $keys, $size AS pressroom_size FROM $name WHERE $filter" . ( '' === $behind ? '' : " AND ($behind)" ) . " ORDER BY $keys LIMIT " . self::ROWS );
			for ( $first = 0; $first < count( $found ); $first = $end ) {
				$bytes = 0;
				$where = array();
				for ( $end = $first; $end < count( $found ) && ( $end === $first || $bytes + $found[ $end ]['pressroom_size'] <= self::BYTES ); ++$end ) {
					$bytes  += $found[ $end ]['pressroom_size'];
					$where[] = $this->is_row( $key, $found[ $end ], $binary );
				}
				$count['looked']  += $end - $first;
				$count['changed'] += $this->batch( $table, $columns, $key, "SELECT $read FROM $name WHERE " . implode( ' OR ', $where ) );
			}
			if ( $found ) {
				$behind = $this->is_behind( $key, end( $found ), $binary );
			}
		} while ( count( $found ) === self::ROWS );
		return $count;
	}

	private function is_row( array $key, array $row, array $binary ): string {
		return '(' . implode( ' AND ', array_map( function ( $column ) use ( $row, $binary ) {
			return self::name( $column ) . ' = ' . $this->quoted( $row[ $column ], ! empty( $binary[ $column ] ) );
		}, $key ) ) . ')';
	}

	/** The condition for rows that come later in the order of the key. */
	private function is_behind( array $key, array $row, array $binary ): string {
		$alternatives = array();
		$same         = '';
		foreach ( $key as $column ) {
			$value          = $this->quoted( $row[ $column ], ! empty( $binary[ $column ] ) );
			$alternatives[] = $same . self::name( $column ) . " > $value";
			$same          .= self::name( $column ) . " = $value AND ";
		}
		return implode( ' OR ', $alternatives );
	}

	/** Moves some rows, in one transaction and, if the database takes that, in one statement. */
	private function batch( string $table, array $columns, array $key, string $select ): int {
		$changes = array();
		$binary  = array_column( $columns, 'is_binary', 'name' );
		$this->database->begin_transaction();
		foreach ( $this->rows( $select . ( $this->is_dry ? '' : ' FOR UPDATE' ) ) as $row ) {
			$shown = array_intersect_key( $row, array_flip( $key ) );
			$sets  = $this->sets( $table, $columns, $row, $shown );
			if ( $sets ) {
				$changes[] = array( $sets, $shown, $this->is_row( $key, $row, $binary ) );
			}
		}
		$changed = count( $changes );
		if ( $changes && ! $this->is_dry && ! $this->at_once( $table, $columns, $key, $changes ) ) {
			$changed = 0;
			foreach ( $changes as list( $sets, $shown, $where ) ) {
				$changed += (int) $this->row( $table, $columns, $sets, $shown, $where );
			}
		}
		$this->database->commit();
		return $changed;
	}

	/** Whether all these rows were changed by one statement. If not, none was. */
	private function at_once( string $table, array $columns, array $key, array $changes ): bool {
		$cases = array();
		foreach ( $changes as list( $sets, , $where ) ) {
			foreach ( $sets as $name => $value ) {
				$cases[ $name ] = ( $cases[ $name ] ?? '' ) . " WHEN $where THEN $value";
			}
		}
		// Assignments are done one after another: what finds the rows must stay.
		if ( count( $changes ) < 2 || array_intersect( $key, array_keys( $cases ) ) ) {
			return false;
		}
		$assignments = array();
		foreach ( $cases as $name => $case ) {
			$name          = self::name( $name );
			$assignments[] = "$name = CASE$case ELSE $name END";
		}
		$update = 'UPDATE ' . self::name( $table ) . ' SET ' . implode( ', ', array_merge( $assignments, self::stamps( $columns ) ) ) . ' WHERE ' . implode( ' OR ', array_column( $changes, 2 ) );
		if ( strlen( $update ) >= $this->packet ) {
			return false;
		}
		$this->database->query( 'SAVEPOINT pressroom' );
		if ( null === $this->update( $update, count( $changes ) ) ) {
			return true;
		}
		$this->database->query( 'ROLLBACK TO SAVEPOINT pressroom' );
		return false;
	}

	/** A table without a key: its rows are found again by all that is in them. */
	private function sweep( string $table, array $columns, string $filter ): array {
		$name = self::name( $table );
		$size = implode( ' + ', array_map( static function ( $column ) {
			return 'COALESCE(LENGTH(' . self::name( $column['name'] ) . '), 0)';
		}, $columns ) );
		$all  = $this->rows( "SELECT COUNT(*) AS looked, COALESCE(SUM($size), 0) AS bytes FROM $name WHERE $filter" )[0];
		if ( $all['bytes'] > self::KEYLESS_BYTES ) {
			$this->left( $table, array(), null, "the table has no key, and {$all['looked']} rows with too many bytes" );
			return array( 'looked' => 0, 'changed' => 0 );
		}
		$changed = 0;
		$this->database->begin_transaction();
		foreach ( $this->rows( "SELECT DISTINCT * FROM $name WHERE $filter" ) as $row ) {
			$where = array();
			foreach ( $columns as $column ) {
				$where[] = ( null === $row[ $column['name'] ] ? '' : 'BINARY ' ) . self::name( $column['name'] ) . ' <=> ' . $this->quoted( $row[ $column['name'] ], true );
			}
			$sets     = $this->sets( $table, $columns, $row, $row );
			$changed += $sets ? (int) $this->row( $table, $columns, $sets, $row, implode( ' AND ', $where ) ) : 0;
		}
		$this->database->commit();
		return array( 'looked' => (int) $all['looked'], 'changed' => $changed );
	}

	// --- A row -----------------------------------------------------------------------------------------------------------

	/**
	 * What changes in a row: quoted values by column.
	 *
	 * @param array $shown What names the row to people.
	 */
	private function sets( string $table, array $columns, array $row, array $shown ): array {
		$sets = array();
		foreach ( $columns as $column ) {
			$name = $column['name'];
			if ( ! $column['is_text'] || null === $row[ $name ] ) {
				continue;
			}
			$new = $this->moved( $table, $name, $row );
			foreach ( $this->values->reasons() as $reason ) {
				$this->left( $table, $shown, $name, $reason );
			}
			if ( $new !== $row[ $name ] ) {
				$sets[ $name ] = $this->quoted( $new, $column['is_binary'] );
			}
		}
		return $sets;
	}

	/** Columns that note when a row was changed, which was not now. */
	private static function stamps( array $columns ): array {
		return array_map( static function ( $name ) {
			return self::name( $name ) . ' = ' . self::name( $name );
		}, array_keys( array_filter( array_column( $columns, 'is_stamp', 'name' ) ) ) );
	}

	/** Changes one row, or notes why it cannot be. */
	private function row( string $table, array $columns, array $sets, array $shown, string $where ): bool {
		if ( $this->is_dry ) {
			return true;
		}
		$assignments = array();
		foreach ( $sets as $name => $value ) {
			$assignments[] = self::name( $name ) . " = $value";
		}
		$update  = 'UPDATE ' . self::name( $table ) . ' SET ' . implode( ', ', array_merge( $assignments, self::stamps( $columns ) ) ) . " WHERE $where";
		$because = strlen( $update ) < $this->packet ? $this->update( $update, 1 ) : 'it is larger than a packet to the database';
		if ( null !== $because ) {
			$this->left( $table, $shown, implode( ', ', array_keys( $sets ) ), $because );
		}
		return null === $because;
	}

	/** Does it, or says why it was refused. */
	private function update( string $update, int $least ): ?string {
		try {
			$this->database->query( $update );
			return $this->database->affected_rows >= $least ? null : 'the row was not found again';
		} catch ( mysqli_sql_exception $error ) {
			if ( ! in_array( $error->getCode(), self::REFUSALS, true ) ) {
				throw $error;
			}
			return 'the database refuses it: ' . $error->getMessage();
		}
	}

	/** A column's value moved. Few places hold a bare host: the network's tables, and options that are named so. */
	private function moved( string $table, string $column, array $row ): string {
		$old = $row[ $column ];
		$new = $this->values->move( $old );
		if ( $new !== $old ) {
			return $new;
		}
		$is_domain = 'domain' === $column && preg_match( '/^(blogs|site|signups)$/', substr( $table, strlen( $this->prefix ) ) );
		if ( $is_domain ) {
			return $this->addresses->domain( $old ) ?? $old;
		}
		$is_named = in_array( $column, array( 'option_value', 'meta_value' ), true )
			&& preg_match( '/^(sitemeta|(\d+_)?options)$/', substr( $table, strlen( $this->prefix ) ) )
			&& preg_match( '/(^|_)(domain|host|hostname)$/i', $row['option_name'] ?? $row['meta_key'] ?? '' );
		return $is_named ? $this->addresses->host( $old ) : $old;
	}

	private function left( string $table, array $shown, ?string $column, string $reason ): void {
		++$this->result['broken_count'];
		if ( count( $this->result['broken'] ) < self::LISTED ) {
			$key                      = array_map( static function ( $value ) {
				return is_string( $value ) && strlen( $value ) > 200 ? substr( $value, 0, 200 ) . '…' : $value;
			}, $shown );
			$this->result['broken'][] = array( 'table' => $table, 'key' => (object) $key ) + compact( 'column', 'reason' );
		}
	}

	// --- SQL -------------------------------------------------------------------------------------------------------------

	private function rows( string $sql ): array {
		return $this->database->query( $sql )->fetch_all( MYSQLI_ASSOC );
	}

	private static function name( string $name ): string {
		return '`' . str_replace( '`', '``', $name ) . '`';
	}

	private function quoted( ?string $value, bool $is_binary = false ): string {
		return null === $value ? 'NULL' : ( $is_binary ? '_binary' : '' ) . "'" . $this->database->real_escape_string( $value ) . "'";
	}
}

/** The wish, checked. */
function pressroom_rewrite_wish( $wish ): array {
	if ( ! is_array( $wish ) ) {
		throw new InvalidArgumentException( 'standard input is not a JSON object' );
	}
	$strings = static function ( $list, int $length = -1 ): bool {
		return is_array( $list ) && array_filter( $list, 'is_string' ) === $list && array_values( $list ) === $list && ( $length < 0 || count( $list ) === $length );
	};
	if ( ! $strings( $wish['from'] ?? null ) || ! $wish['from'] ) {
		throw new InvalidArgumentException( '`from` is not a list of addresses' );
	}
	if ( ! is_string( $wish['to'] ?? null ) ) {
		throw new InvalidArgumentException( '`to` is missing' );
	}
	if ( isset( $wish['tables'] ) && ! $strings( $wish['tables'] ) ) {
		throw new InvalidArgumentException( '`tables` is not a list of names' );
	}
	if ( isset( $wish['database'] ) && ! is_string( $wish['database'] ) ) {
		throw new InvalidArgumentException( '`database` is not a name' );
	}
	if ( ! is_bool( $wish['dry_run'] ?? false ) || ! is_array( $wish['paths'] ?? array() ) ) {
		throw new InvalidArgumentException( '`dry_run` is not true or false, or `paths` not a list' );
	}
	foreach ( $wish['paths'] ?? array() as $pair ) {
		if ( ! $strings( $pair, 2 ) || ! preg_match( '~^(/[^/]+)+$~D', $pair[0] ) || ! preg_match( '~^(/[^/]+)+$~D', $pair[1] ) ) {
			throw new InvalidArgumentException( '`paths` has something other than two directories, absolute and without a slash at the end' );
		}
	}
	foreach ( $wish['paths'] ?? array() as $i => list( , $new ) ) {
		foreach ( $wish['paths'] as $j => list( $old ) ) {
			if ( $i !== $j && 0 === strncmp( "$new/", "$old/", strlen( $old ) + 1 ) ) {
				throw new InvalidArgumentException( "`paths` moves something to `$new`, which would move again" );
			}
		}
	}
	return $wish + array( 'dry_run' => false, 'paths' => array(), 'tables' => null, 'database' => null );
}

( static function () use ( $argv ) {
	$began = microtime( true );
	ini_set( 'display_errors', 'stderr' );
	ini_set( 'memory_limit', '1G' );
	set_time_limit( 0 );
	try {
		$wish      = pressroom_rewrite_wish( json_decode( (string) stream_get_contents( STDIN ), true ) );
		$addresses = new Pressroom_Addresses( $wish['from'], $wish['to'], $wish['paths'] ?? array() );
		$config    = getenv( 'PRESSROOM_CONFIG' ) ?: dirname( rtrim( $argv[1] ?? __DIR__, '/' ), 2 ) . '/config/site.php';
		if ( ! is_readable( $config ) ) {
			throw new InvalidArgumentException( "the site's configuration `$config` cannot be read" );
		}
		require $config;
		$rewrite = new Pressroom_Rewrite( pressroom_database( $wish['database'] ), $table_prefix, $addresses, $wish['dry_run'] );
		$result  = $rewrite->run( $wish['tables'] );
	} catch ( InvalidArgumentException $error ) {
		pressroom_rewrite_end( array( 'error' => $error->getMessage() ), 1 );
	} catch ( Throwable $error ) {
		pressroom_rewrite_end( array( 'error' => $error->getMessage() ), 2 );
	}
	pressroom_rewrite_end( $result + array( 'milliseconds' => (int) round( 1000 * ( microtime( true ) - $began ) ), 'dry_run' => $wish['dry_run'] ), 0 );
} )();
