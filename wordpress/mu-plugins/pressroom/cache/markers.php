<?php
/**
 * Marks on the local disk that say "the object cache may hold something stale".
 *
 * Redis cannot be told about an invalidation that never left its process: the process was killed between the database's
 * commit and the delete, or Redis did not answer. So a request that writes to the database first creates a file and holds a
 * lock on it; it removes the file at its end. The kernel releases the lock whenever the process dies. A later request that
 * finds a file nobody holds knows that invalidations were lost, and starts a new generation before its first read.
 *
 * Always: a mark is removed only by its owner (nothing was lost), or after Redis has been told.
 * A process that lives on while Redis is away notes which names it could not invalidate; of a killed one nobody knows, and a
 * new generation is always right.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Cache_Markers {

	/** @var string Directory of the marks; empty where there is none to write to. */
	private $directory;

	/** @var resource|null The lock that says "still writing". */
	private $lock = null;

	/** @var string Path of our own mark. */
	private $path = '';

	public function __construct( string $directory ) {
		$this->directory = $directory;
	}

	/** The site's own temporary directory. */
	public static function default_directory(): string {
		if ( defined( 'PRESSROOM_TMP' ) ) {
			return PRESSROOM_TMP . '/object-cache';
		}
		$config = getenv( 'PRESSROOM_CONFIG' );
		return $config ? dirname( $config, 2 ) . '/tmp/object-cache' : '';
	}

	/** Says that this process may be about to change what the cache mirrors. */
	public function begin_writing(): void {
		if ( null !== $this->lock || '' === $this->directory ) {
			return;
		}
		// Somebody may find the file before it is locked, and claim it; then another one is made.
		for ( $attempt = 0; $attempt < 3; ++$attempt ) {
			$this->path = $this->directory . '/writing.' . bin2hex( random_bytes( 8 ) );
			$lock       = @fopen( $this->path, 'c' );
			if ( ! $lock ) {
				@mkdir( $this->directory, 0700, true );
				$lock = @fopen( $this->path, 'c' );
			}
			if ( ! $lock ) {
				return;
			}
			flock( $lock, LOCK_EX );
			clearstatcache( true, $this->path );
			if ( file_exists( $this->path ) ) {
				$this->lock = $lock;
				return;
			}
		}
	}

	/** Whether begin_writing() holds a mark. */
	public function is_writing(): bool {
		return null !== $this->lock;
	}

	/** Takes the mark back when nothing was lost; else leaves it for the next request. */
	public function end_writing( bool $nothing_lost ): void {
		if ( null === $this->lock ) {
			return;
		}
		if ( $nothing_lost ) {
			@unlink( $this->path );
		}
		fclose( $this->lock );
		$this->lock = null;
	}

	/**
	 * Says at once that invalidations were lost.
	 *
	 * @param string[]|null $names Of what; null: of everything.
	 */
	public function lost( ?array $names ): void {
		if ( '' === $this->directory ) {
			return;
		}
		if ( ! is_dir( $this->directory ) ) {
			@mkdir( $this->directory, 0700, true );
		}
		$path = $this->directory . '/lost.' . getmypid();
		$text = null === $names || preg_grep( '/\n/', $names ) ? "*\n" : implode( "\n", $names ) . "\n";
		// Who claims a mark renames it before reading. If it still has its name after our write, the write will be read.
		for ( $attempt = 0; $attempt < 3; ++$attempt ) {
			$file = @fopen( $path, 'a' );
			if ( ! $file || fwrite( $file, $text ) !== strlen( $text ) ) {
				error_log( 'pressroom: the object cache lost an invalidation and could not note it in ' . $this->directory );
				return;
			}
			clearstatcache( true, $path );
			$same = fstat( $file )['ino'] === @fileinode( $path );
			fclose( $file );
			if ( $same ) {
				return;
			}
		}
	}

	/**
	 * Claims the marks that nobody holds: something was lost. They get new names first, so that a mark made from now on is a
	 * new one; whoever dies here leaves them to be claimed again.
	 *
	 * @return array<string,string[]|null> Paths, to be given to forget() once Redis has been told, and the names lost; null: unknown.
	 */
	public function abandoned(): array {
		if ( '' === $this->directory || ! is_dir( $this->directory ) ) {
			return array();
		}
		$found = array();
		foreach ( (array) scandir( $this->directory, SCANDIR_SORT_NONE ) as $name ) {
			$path = $this->directory . '/' . $name;
			if ( '.' !== $name[0] && ( 0 !== strncmp( $name, 'writing.', 8 ) || $this->is_abandoned( $path ) ) ) {
				$claim = $this->directory . '/claimed.' . bin2hex( random_bytes( 8 ) );
				if ( @rename( $path, $claim ) ) {
					$names           = (array) @file( $claim, FILE_IGNORE_NEW_LINES | FILE_SKIP_EMPTY_LINES );
					$found[ $claim ] = array() === $names || count( $names ) > 2000 || in_array( '*', $names, true ) ? null : $names;
				}
			}
		}
		return $found;
	}

	/** @param string[] $paths What abandoned() returned. */
	public function forget( array $paths ): void {
		foreach ( $paths as $path ) {
			@unlink( $path );
		}
	}

	private function is_abandoned( string $path ): bool {
		if ( null !== $this->lock && $path === $this->path ) {
			return false;
		}
		$file = @fopen( $path, 'r' );
		if ( ! $file ) {
			return false;
		}
		// A file just created and not yet locked looks abandoned: that costs a generation, and its owner makes another file.
		$abandoned = flock( $file, LOCK_EX | LOCK_NB );
		fclose( $file );
		return $abandoned && file_exists( $path );
	}
}
