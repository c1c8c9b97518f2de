<?php
/**
 * What changed, as tags: posts, their meta, terms, comments, users, menus.
 *
 * Hooks that fire after the database has the change, wherever it comes from: admin, REST, cron, wp-cli, XML-RPC. Changes that no
 * visitor can see (drafts, revisions, edit locks, log-ins) purge nothing. Options are in options.php, plain SQL in direct.php.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Changes {

	/** Post types that are never part of a page. */
	const HIDDEN_TYPES = array( 'revision', 'customize_changeset', 'oembed_cache', 'user_request', 'scheduled-action', 'shop_order', 'shop_order_refund', 'shop_order_placehold', 'wpcf7_contact_form_log', 'flamingo_inbound' );

	/** Post meta that is bookkeeping. */
	const HIDDEN_POST_META = '/^(_edit_lock|_edit_last|_pingme|_encloseme|_trackbackme|_wp_old_(slug|date)|_wp_trash_.*|_wp_desired_post_slug|_customize_.*|_oembed_.*|_transient.*|.*_views?(_count)?|post_views.*)$/';

	/** User meta that is bookkeeping. */
	const HIDDEN_USER_META = '/(^(session_tokens|community-events-location|dismissed_wp_pointers|default_password_nag|show_welcome_panel|last_update|wc_last_active|_woocommerce_.*|_application_passwords|_new_email|rich_editing|syntax_highlighting|comment_shortcuts|admin_color|use_ssl|show_admin_bar_front|locale|primary_blog|source_domain)$|user-settings|dashboard_quick_press|_last_(login|active|activity)$|^(meta-box-order|closedpostboxes|metaboxhidden|manage.*columnshidden|screen_layout|nav_menu_recently_edited|enable_custom_fields|.*per_page$)|persisted_preferences|_capabilities$|_user_level$)/';

	/** Fields of a post that decide which lists it is in, and where. */
	const LISTING_FIELDS = array( 'post_date', 'post_title', 'post_name', 'post_parent', 'menu_order', 'post_author', 'post_type', 'post_password', 'post_status' );

	public static function watch(): void {
		$hooks = array(
			'transition_post_status'     => 'status',
			'post_updated'               => 'post_updated',
			'attachment_updated'         => 'post_updated',
			'add_attachment'             => 'listed',
			'edit_attachment'            => 'post',
			'deleted_post'               => 'deleted_post',
			'after_delete_post'          => 'deleted_post',
			'wp_after_insert_post'       => 'post_saved',
			'clean_post_cache'           => 'post_cleaned',
			'post_stuck'                 => 'listed',
			'post_unstuck'               => 'listed',
			'added_post_meta'            => 'post_meta',
			'updated_post_meta'          => 'post_meta',
			'deleted_post_meta'          => 'post_meta',
			'set_object_terms'           => 'object_terms',
			'added_term_relationship'    => 'relationship',
			'deleted_term_relationships' => 'relationships_deleted',
			'created_term'               => 'term',
			'edited_term'                => 'term',
			'delete_term'                => 'term',
			'edited_term_taxonomy'       => 'term_count',
			'added_term_meta'            => 'term_meta',
			'updated_term_meta'          => 'term_meta',
			'deleted_term_meta'          => 'term_meta',
			'transition_comment_status'  => 'comment_status',
			'wp_insert_comment'          => 'comment_new',
			'edit_comment'               => 'comment_edited',
			'deleted_comment'            => 'comment_deleted',
			'added_comment_meta'         => 'comment_meta',
			'updated_comment_meta'       => 'comment_meta',
			'deleted_comment_meta'       => 'comment_meta',
			'wp_update_comment_count'    => 'comment_count',
			'clean_comment_cache'        => 'comment_cleaned',
			'profile_update'             => 'user',
			'deleted_user'               => 'user_deleted',
			'remove_user_from_blog'      => 'user_deleted',
			'user_register'              => 'user_new',
			'set_user_role'              => 'user_new',
			'clean_user_cache'           => 'user_cleaned',
			'added_user_meta'            => 'user_meta',
			'updated_user_meta'          => 'user_meta',
			'deleted_user_meta'          => 'user_meta',
			'wp_update_nav_menu'         => 'menu',
			'wp_update_nav_menu_item'    => 'menu',
			'wp_delete_nav_menu'         => 'menu',
			'split_shared_term'          => 'terms_split',
		);
		foreach ( $hooks as $hook => $method ) {
			add_action( $hook, array( __CLASS__, $method ), PHP_INT_MAX - 1, 6 );
		}
		foreach ( array( 'switch_theme', 'customize_save_after', 'upgrader_process_complete', 'activated_plugin', 'deactivated_plugin', '_core_updated_successfully', 'rest_after_save_widget', 'permalink_structure_changed' ) as $hook ) {
			add_action( $hook, array( __CLASS__, 'blog' ), PHP_INT_MAX - 1, 0 );
		}
		add_action( 'wp_update_site', array( __CLASS__, 'blog_updated' ), PHP_INT_MAX - 1, 2 );
		foreach ( array( 'wp_delete_site', 'wp_initialize_site', 'archive_blog', 'unarchive_blog' ) as $hook ) {
			add_action( $hook, array( 'Pressroom_Purge', 'everything' ), PHP_INT_MAX - 1, 0 );
		}
	}

	public static function blog(): void {
		Pressroom_Purge::blog();
	}

	/** Publishing a post notes the time with its blog; pages of other blogs do not show that. */
	public static function blog_updated( $new, $old ): void {
		foreach ( array( 'domain', 'path', 'site_id', 'public', 'archived', 'mature', 'spam', 'deleted', 'lang_id' ) as $field ) {
			if ( (string) $new->$field !== (string) $old->$field ) {
				Pressroom_Purge::everything();
				return;
			}
		}
	}

	// --- Posts -----------------------------------------------------------------------------------------------------------

	public static function status( $new, $old, $post ): void {
		if ( $new !== $old && ( self::is_public( $new ) || self::is_public( $old ) ) ) {
			self::listed( $post );
		}
	}

	public static function post_updated( $id, $after, $before ): void {
		if ( ! self::is_public( $after->post_status ) && ! self::is_public( $before->post_status ) ) {
			return;
		}
		foreach ( self::LISTING_FIELDS as $field ) {
			if ( $after->$field !== $before->$field ) {
				self::listed( $after );
				return;
			}
		}
		self::post( $after );
	}

	public static function post_saved( $id, $post, $update = true ): void {
		if ( self::is_public( $post->post_status ) ) {
			$update ? self::post( $post ) : self::listed( $post );
		}
	}

	public static function deleted_post( $id, $post = null ): void {
		Pressroom_Direct::accounted( 'posts', (int) $id );
		if ( $post && self::is_public( $post->post_status ) ) {
			self::listed( $post );
		}
	}

	public static function post_cleaned( $id, $post = null ): void {
		Pressroom_Direct::accounted( 'posts', (int) $id );
	}

	/** The post itself, wherever it is shown, and lists that depend on what it says. */
	public static function post( $post ): void {
		$post = get_post( $post );
		if ( $post && ! in_array( $post->post_type, self::HIDDEN_TYPES, true ) ) {
			Pressroom_Purge::tags( array( "post-$post->ID", "query-$post->post_type" ) );
		}
	}

	/** The post, and every list it is in, was in, or belongs to from now on. */
	public static function listed( $post ): void {
		$post = get_post( $post );
		if ( ! $post || in_array( $post->post_type, self::HIDDEN_TYPES, true ) ) {
			return;
		}
		$tags = array( "post-$post->ID", "list-$post->post_type", "query-$post->post_type", "$post->post_type-archive" );
		if ( is_post_type_viewable( $post->post_type ) ) {
			$tags = array_merge( $tags, array( 'front', 'home', 'archive', 'feed', '404', 'sitemap', "author-$post->post_author" ) );
		}
		foreach ( get_object_taxonomies( $post->post_type ) as $taxonomy ) {
			$terms = get_the_terms( $post, $taxonomy );
			foreach ( is_array( $terms ) ? $terms : array() as $term ) {
				$tags[] = "term-$term->term_id";
				$tags[] = "list-terms-$taxonomy"; // Its count.
			}
		}
		Pressroom_Purge::tags( $tags );
	}

	public static function post_meta( $meta_id, $id, $key = '' ): void {
		Pressroom_Direct::accounted( 'postmeta', (int) $id );
		$post = get_post( $id );
		if ( $post && self::is_public( $post->post_status ) && ! preg_match( self::HIDDEN_POST_META, (string) $key ) ) {
			self::post( $post );
		}
	}

	// --- Terms -----------------------------------------------------------------------------------------------------------

	public static function object_terms( $id, $terms, $tt_ids, $taxonomy, $append = false, $old_tt_ids = array() ): void {
		Pressroom_Direct::accounted( 'term_relationships', (int) $id );
		$tt_ids  = array_map( 'intval', (array) $tt_ids );
		$old     = array_map( 'intval', (array) $old_tt_ids );
		$changed = array_merge( array_diff( $tt_ids, $old ), $append ? array() : array_diff( $old, $tt_ids ) );
		if ( $changed ) {
			self::relationships( (int) $id, $changed, (string) $taxonomy );
		}
	}

	public static function relationship( $id, $tt_id, $taxonomy = '' ): void {
		Pressroom_Direct::accounted( 'term_relationships', (int) $id );
		self::relationships( (int) $id, array( (int) $tt_id ), (string) $taxonomy );
	}

	public static function relationships_deleted( $id, $tt_ids, $taxonomy = '' ): void {
		Pressroom_Direct::accounted( 'term_relationships', (int) $id );
		self::relationships( (int) $id, (array) $tt_ids, (string) $taxonomy );
	}

	private static function relationships( int $id, array $tt_ids, string $taxonomy ): void {
		$object = get_taxonomy( $taxonomy );
		$post   = $object && array_intersect( (array) $object->object_type, get_post_types() ) ? get_post( $id ) : null;
		if ( ! $post || ! self::is_public( $post->post_status ) ) {
			return;
		}
		$tags = array( "post-$id", "list-$post->post_type", "query-$post->post_type", "list-terms-$taxonomy" );
		foreach ( $tt_ids as $tt_id ) {
			$term = get_term_by( 'term_taxonomy_id', (int) $tt_id );
			if ( $term ) {
				$tags[] = "term-$term->term_id";
			}
		}
		Pressroom_Purge::tags( $tags );
	}

	public static function term( $id, $tt_id, $taxonomy = '' ): void {
		Pressroom_Direct::accounted( 'terms', (int) $id );
		Pressroom_Direct::accounted( 'term_taxonomy', (int) $tt_id );
		Pressroom_Purge::tags( array( "term-$id", "list-terms-$taxonomy", '404' ) );
	}

	/** Core counts again whenever a post is touched; visible posts purge the lists of their terms themselves. */
	public static function term_count( $tt_id ): void {
		Pressroom_Direct::accounted( 'term_taxonomy', (int) $tt_id );
	}

	public static function term_meta( $meta_id, $id ): void {
		Pressroom_Direct::accounted( 'termmeta', (int) $id );
		$term = get_term( (int) $id );
		Pressroom_Purge::tags( $term instanceof WP_Term ? array( "term-$id", "list-terms-$term->taxonomy" ) : array( "term-$id" ) );
	}

	public static function terms_split(): void {
		Pressroom_Purge::blog();
	}

	public static function menu( $menu_id ): void {
		Pressroom_Purge::tags( array( "menu-$menu_id", "term-$menu_id", 'list-nav_menu_item' ) );
	}

	// --- Comments --------------------------------------------------------------------------------------------------------

	public static function comment_status( $new, $old, $comment ): void {
		Pressroom_Direct::accounted( 'comments', (int) $comment->comment_ID );
		if ( $new !== $old && ( 'approved' === $new || 'approved' === $old ) ) {
			self::comment( $comment );
		}
	}

	public static function comment_new( $id, $comment = null ): void {
		Pressroom_Direct::accounted( 'comments', (int) $id );
		self::comment_if_approved( $comment ?? get_comment( $id ) );
	}

	public static function comment_edited( $id ): void {
		Pressroom_Direct::accounted( 'comments', (int) $id );
		self::comment_if_approved( get_comment( $id ) );
	}

	public static function comment_deleted( $id, $comment = null ): void {
		Pressroom_Direct::accounted( 'comments', (int) $id );
		self::comment_if_approved( $comment );
	}

	public static function comment_cleaned( $id ): void {
		Pressroom_Direct::accounted( 'comments', (int) $id );
	}

	public static function comment_meta( $meta_id, $id, $key = '' ): void {
		Pressroom_Direct::accounted( 'commentmeta', (int) $id );
		if ( 0 !== strncmp( (string) $key, '_wp_trash_', 10 ) && 0 !== strncmp( (string) $key, 'akismet_', 8 ) ) {
			self::comment_if_approved( get_comment( $id ) );
		}
	}

	public static function comment_count( $post_id, $new = 0, $old = 0 ): void {
		Pressroom_Direct::accounted( 'posts', (int) $post_id );
		$post = get_post( $post_id );
		if ( (int) $new !== (int) $old && $post && self::is_public( $post->post_status ) ) {
			self::post( $post );
		}
	}

	private static function comment_if_approved( $comment ): void {
		if ( $comment && '1' === (string) $comment->comment_approved ) {
			self::comment( $comment );
		}
	}

	private static function comment( $comment ): void {
		Pressroom_Purge::tags( array( "comment-$comment->comment_ID", "post-$comment->comment_post_ID", 'list-comments', 'comment-feed' ) );
	}

	// --- Users -----------------------------------------------------------------------------------------------------------

	public static function user( $id ): void {
		Pressroom_Direct::accounted( 'users', (int) $id );
		Pressroom_Purge::tags( array( "user-$id", "author-$id", 'list-users' ) );
	}

	public static function user_new( $id ): void {
		Pressroom_Direct::accounted( 'users', (int) $id );
		Pressroom_Purge::tags( array( "user-$id", 'list-users' ) );
	}

	public static function user_deleted( $id ): void {
		self::user( $id );
	}

	public static function user_cleaned( $id ): void {
		Pressroom_Direct::accounted( 'users', (int) $id );
	}

	public static function user_meta( $meta_id, $id, $key = '' ): void {
		Pressroom_Direct::accounted( 'usermeta', (int) $id );
		if ( ! preg_match( self::HIDDEN_USER_META, (string) $key ) ) {
			Pressroom_Purge::tags( array( "user-$id", "author-$id" ) );
		}
	}

	/** Whether visitors may see a post of this status. An attachment inherits. */
	public static function is_public( $status ): bool {
		if ( 'publish' === $status || 'inherit' === $status ) {
			return true;
		}
		$object = get_post_status_object( (string) $status );
		return $object && $object->public;
	}
}
