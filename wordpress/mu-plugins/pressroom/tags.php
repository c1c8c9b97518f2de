<?php
/**
 * What a page shows, as tags.
 *
 * Objects: whatever the page looked at went through the object cache, so its contents at the end of the request are the list of
 * all posts, terms, users and comments the page may depend on; no rendering hook can forget one.
 * Lists: a query for several posts also depends on posts that are not there yet, so each query leaves `list-TYPE`, and
 * `query-TYPE` where its order or choice depends on what posts say (search, meta, modified date).
 *
 * Always: a page whose dependencies cannot be known carries `any`, which every purge of the blog includes.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Tags {

	/** @var array<string,true> */
	private static $tags = array();

	/** Orders that do not depend on what a post says. */
	const PLAIN_ORDERS = array( '', 'date', 'post_date', 'title', 'post_title', 'menu_order', 'parent', 'author', 'name', 'post_name', 'id', 'none', 'post__in', 'post_name__in', 'post_parent__in', 'type' );

	public static function watch(): void {
		add_action( 'pre_get_posts', array( __CLASS__, 'posts_query' ), PHP_INT_MAX );
		add_action( 'pre_get_terms', array( __CLASS__, 'terms_query' ), PHP_INT_MAX );
		add_action( 'pre_get_comments', array( __CLASS__, 'comments_query' ), PHP_INT_MAX );
		add_action( 'pre_get_users', array( __CLASS__, 'users_query' ), PHP_INT_MAX );
		add_filter( 'wp_get_nav_menu_items', array( __CLASS__, 'menu' ), PHP_INT_MAX, 2 );
		foreach ( array( 'getarchives_where', 'get_calendar', 'get_next_post_where', 'get_previous_post_where' ) as $filter ) {
			add_filter( $filter, array( __CLASS__, 'posts_by_sql' ), PHP_INT_MAX );
		}
		foreach ( array( 'get_pages_query_args', 'get_pages' ) as $filter ) {
			add_filter( $filter, array( __CLASS__, 'pages' ), PHP_INT_MAX, 2 );
		}
		add_filter( 'rest_post_dispatch', array( __CLASS__, 'rest' ), PHP_INT_MAX, 3 );
	}

	public static function add( string $tag, ?int $blog = null ): void {
		self::$tags[ Pressroom_Purge::name( $tag, $blog ) ] = true;
	}

	/** @return string[] */
	public static function all(): array {
		self::add( 'site' );
		self::add_kind();
		self::add_objects();
		return array_map( 'strval', array_keys( self::$tags ) );
	}

	public static function posts_query( $query ): void {
		if ( $query->is_singular && $query->is_main_query() ) {
			return;
		}
		$vars  = $query->query_vars;
		$types = $vars['post_type'] ?? '';
		if ( 'any' === $types ) {
			$types = get_post_types( array( 'exclude_from_search' => false ) );
		} elseif ( '' === $types || array() === $types ) {
			$types = ! empty( $query->is_tax ) || ! empty( $vars['tax_query'] ) ? array_merge( array( 'post' ), get_post_types( array( 'public' => true ) ) ) : array( 'post' );
		}
		$orders  = is_array( $vars['orderby'] ?? '' ) ? array_keys( $vars['orderby'] ) : preg_split( '/[\s,]+/', (string) ( $vars['orderby'] ?? '' ) );
		$content = ! empty( $vars['s'] ) || ! empty( $vars['meta_query'] ) || ! empty( $vars['meta_key'] ) || ! empty( $vars['date_query'] )
			|| array_diff( array_map( 'strtolower', array_map( 'strval', $orders ) ), self::PLAIN_ORDERS );
		foreach ( (array) $types as $type ) {
			self::add( "list-$type" );
			if ( $content ) {
				self::add( "query-$type" );
			}
		}
	}

	public static function terms_query( $query ): void {
		foreach ( (array) ( $query->query_vars['taxonomy'] ?? array() ) as $taxonomy ) {
			self::add( "list-terms-$taxonomy" );
		}
	}

	public static function comments_query( $query ): void {
		$post = (int) ( $query->query_vars['post_id'] ?? 0 );
		self::add( $post ? "post-$post" : 'list-comments' );
	}

	public static function users_query(): void {
		self::add( 'list-users' );
	}

	public static function menu( $items, $menu ) {
		if ( isset( $menu->term_id ) ) {
			self::add( "menu-$menu->term_id" );
		}
		return $items;
	}

	public static function posts_by_sql( $where ) {
		foreach ( get_post_types( array( 'public' => true ) ) as $type ) {
			self::add( "list-$type" );
		}
		return $where;
	}

	public static function pages( $pages, $args ) {
		self::add( 'list-' . ( $args['post_type'] ?? 'page' ) );
		return $pages;
	}

	public static function rest( $response, $server, $request ) {
		$route = $request->get_route();
		self::add( 'rest' );
		if ( preg_match( '~^/wp/v2/([\w-]+)~', $route, $match ) ) {
			self::add( "rest-$match[1]" );
		}
		if ( ! preg_match( '~^/(wp/v2(/(posts|pages|media|categories|tags|comments|users|types|taxonomies|search)\b.*)?|oembed/1\.0/embed)?$~', $route ) ) {
			self::add( 'any' );
		}
		return $response;
	}

	/** What kind of page it is. */
	private static function add_kind(): void {
		if ( ! did_action( 'wp' ) ) {
			return;
		}
		$kinds = array(
			'front'        => is_front_page(),
			'home'         => is_home(),
			'archive'      => is_archive() || is_home(),
			'date-archive' => is_date(),
			'feed'         => is_feed(),
			'comment-feed' => is_comment_feed(),
			'search'       => is_search(),
			'404'          => is_404(),
			'embed'        => is_embed(),
			'sitemap'      => '' !== (string) get_query_var( 'sitemap' ),
		);
		foreach ( array_keys( array_filter( $kinds ) ) as $kind ) {
			self::add( (string) $kind );
		}
		if ( is_post_type_archive() ) {
			foreach ( (array) get_query_var( 'post_type' ) as $type ) {
				self::add( "$type-archive" );
			}
		} elseif ( is_home() ) {
			self::add( 'post-archive' );
		}
		if ( is_author() ) {
			self::add( 'author-' . (int) get_query_var( 'author' ) );
		}
		if ( is_search() ) {
			foreach ( get_post_types( array( 'exclude_from_search' => false ) ) as $type ) {
				self::add( "list-$type" );
				self::add( "query-$type" );
			}
		}
	}

	private static function add_objects(): void {
		global $wp_object_cache;
		if ( ! method_exists( $wp_object_cache, 'ids' ) || $wp_object_cache->has_forgotten() ) {
			self::add( 'any' );
		}
		if ( ! method_exists( $wp_object_cache, 'ids' ) ) {
			return;
		}
		foreach ( array( 'posts' => 'post', 'terms' => 'term', 'users' => 'user', 'comment' => 'comment' ) as $group => $tag ) {
			foreach ( $wp_object_cache->ids( $group ) as list( $blog, $id ) ) {
				self::add( "$tag-$id", $blog );
			}
		}
	}
}
