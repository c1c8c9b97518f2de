<?php
/**
 * Watches SQL: says `writing` before the first write, knows open transactions, and finds changes that no hook told of.
 *
 * A plugin may write to WordPress's tables through `$wpdb` directly. Such a write is expected to be followed by a hook that
 * accounts for it (changes.php, options.php). At the end of the request the rest is purged: the object where the statement
 * names it, else everything; and the object cache forgets it, which no direct writer does.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Direct {

	/** Tables visitors see: the column that names the object, and the tag it has. */
	const TABLES = array(
		'posts'              => array( 'ID', 'post' ),
		'postmeta'           => array( 'post_id', 'post' ),
		'terms'              => array( 'term_id', 'term' ),
		'termmeta'           => array( 'term_id', 'term' ),
		'term_taxonomy'      => array( 'term_taxonomy_id', null ),
		'term_relationships' => array( 'object_id', 'post' ),
		'comments'           => array( 'comment_ID', 'comment' ),
		'commentmeta'        => array( 'comment_id', null ),
		'users'              => array( 'ID', 'user' ),
		'usermeta'           => array( 'user_id', 'user' ),
		'options'            => array( null, null ),
	);

	/** @var array<string,array<int|string,string>> Table => object (or '?') => the statement's beginning. */
	private static $expected = array();

	/** @var array<string,array<int|string,true>> Table => objects that hooks told of. */
	private static $accounted = array();

	/** @var array<int,array{0:string,1:int|string}> What the last statement added to $expected. */
	private static $newest = array();

	/** @var bool The last statement ended a transaction. */
	private static $just_ended = false;

	public static function watch(): void {
		add_filter( 'query', array( __CLASS__, 'before' ), PHP_INT_MAX );
	}

	/** Filter `query`. */
	public static function before( $sql ) {
		self::forget_if_nothing_changed();
		if ( self::$just_ended ) {
			self::$just_ended = false;
			Pressroom_Purge::transaction( 'end' );
			Pressroom_Purge::send();
		}
		if ( 0 === strncasecmp( (string) $sql, 'SELECT', 6 ) ) {
			return $sql;
		}
		$transaction = Pressroom_Statement::transaction( (string) $sql );
		if ( 'begin' === $transaction ) {
			Pressroom_Purge::transaction( 'begin' );
		} elseif ( 'end' === $transaction ) {
			self::$just_ended = true;
		} elseif ( Pressroom_Statement::is_write( (string) $sql ) ) {
			Pressroom_Edge::writing();
			self::expect( (string) $sql );
		}
		return $sql;
	}

	/** A hook told of a change of this object (by number, or an option's name). */
	public static function accounted( string $table, $object ): void {
		self::$accounted[ $table ][ $object ] = true;
		unset( self::$expected[ $table ][ $object ], self::$expected[ $table ]['?'] );
	}

	/** A statement that changed no row has no hook, and needs none. */
	private static function forget_if_nothing_changed(): void {
		global $wpdb;
		if ( self::$newest && 0 === (int) $wpdb->rows_affected ) {
			foreach ( self::$newest as list( $table, $object ) ) {
				unset( self::$expected[ $table ][ $object ] );
			}
		}
		self::$newest = array();
	}

	/** Purges what nobody accounted for. */
	public static function settle(): void {
		self::forget_if_nothing_changed();
		$expected       = self::$expected;
		self::$expected = array();
		foreach ( $expected as $table => $objects ) {
			foreach ( $objects as $object => $sql ) {
				if ( defined( 'WP_DEBUG' ) && WP_DEBUG ) {
					error_log( "pressroom: no hook told of this write, so its object is purged: $sql" );
				}
				if ( 'options' === $table ) {
					self::settle_option( (string) $object );
				} elseif ( '?' === $object || null === self::TABLES[ $table ][1] ) {
					wp_cache_flush();
					Pressroom_Purge::blog();
				} else {
					self::settle_object( self::TABLES[ $table ][1], (int) $object );
				}
			}
		}
	}

	private static function expect( string $sql ): void {
		global $wpdb;
		$table = Pressroom_Statement::table( $sql );
		if ( null === $table ) {
			return;
		}
		foreach ( self::TABLES as $name => $meaning ) {
			if ( ( $wpdb->$name ?? '' ) !== $table ) {
				continue;
			}
			if ( 'options' === $name ) {
				$objects = self::options( $sql );
			} elseif ( self::is_bookkeeping( $name, $sql ) ) {
				return;
			} else {
				$objects = Pressroom_Statement::numbers( $sql, $meaning[0] );
				if ( null === $objects && preg_match( '/^\s*(UPDATE|DELETE)/i', $sql ) && strpos( $name, 'meta' ) && preg_match( '/WHERE\s+`?(meta_id|umeta_id)`?\s/i', $sql ) ) {
					$objects = array( '?' );
				}
				$objects = $objects ?? array( '?' );
			}
			foreach ( $objects as $object ) {
				if ( ! isset( self::$expected[ $name ][ $object ] ) ) {
					self::$newest[]                     = array( $name, $object );
					self::$expected[ $name ][ $object ] = substr( $sql, 0, 200 );
				}
			}
			return;
		}
	}

	/** @return string[] */
	private static function options( string $sql ): array {
		if ( false !== strpos( $sql, '_transient_' ) || false !== strpos( $sql, '\_transient\_' ) ) {
			return array();
		}
		$option = Pressroom_Statement::option( $sql );
		if ( null === $option ) {
			return array( '?' );
		}
		return preg_match( Pressroom_Options::BOOKKEEPING, $option ) ? array() : array( $option );
	}

	/** Writes of core's own that change nothing visible and that no hook tells of. */
	private static function is_bookkeeping( string $table, string $sql ): bool {
		switch ( $table ) {
			case 'users':
				return false !== strpos( $sql, 'user_activation_key' ) && false === strpos( $sql, 'display_name' );
			case 'posts':
				return (bool) preg_match( "/'(revision|auto-draft|customize_changeset|oembed_cache)'|post_type = 'revision'|SET `?(to_ping|pinged)`? *=/", $sql );
			case 'postmeta':
				return (bool) preg_match( "/'(_edit_lock|_edit_last|_pingme|_encloseme|_trackbackme)'/", $sql );
			case 'usermeta':
				return (bool) preg_match( "/'(session_tokens|[a-z0-9_]*user-settings[a-z-]*)'/", $sql );
		}
		return false;
	}

	private static function settle_option( string $option ): void {
		if ( '?' === $option ) {
			wp_cache_flush_group( 'options' );
			Pressroom_Purge::blog();
			return;
		}
		wp_cache_delete_multiple( array( 'alloptions', 'notoptions', $option ), 'options' );
		if ( Pressroom_Options::matters( $option ) ) {
			Pressroom_Purge::blog();
		}
	}

	private static function settle_object( string $kind, int $id ): void {
		switch ( $kind ) {
			case 'post':
				clean_post_cache( $id );
				wp_cache_delete( $id, 'post_meta' );
				$post = get_post( $id );
				if ( ! $post || in_array( $post->post_status, array( 'trash', 'draft', 'private', 'pending' ), true ) ) {
					Pressroom_Purge::tags( array( "post-$id" ) );
				}
				if ( ! $post ) {
					Pressroom_Purge::blog();
				} elseif ( 'revision' !== $post->post_type && 'auto-draft' !== $post->post_status ) {
					Pressroom_Changes::listed( $post );
				}
				break;
			case 'term':
				clean_term_cache( $id );
				$term = get_term( $id );
				Pressroom_Purge::tags( array_merge( array( "term-$id" ), $term instanceof WP_Term ? array( "list-terms-$term->taxonomy" ) : array() ) );
				break;
			case 'comment':
				clean_comment_cache( $id );
				$comment = get_comment( $id );
				Pressroom_Purge::tags( array_merge( array( "comment-$id", 'list-comments', 'comment-feed' ), $comment ? array( "post-$comment->comment_post_ID" ) : array() ) );
				break;
			default:
				clean_user_cache( $id );
				Pressroom_Purge::tags( array( "user-$id", "author-$id" ) );
		}
	}
}
