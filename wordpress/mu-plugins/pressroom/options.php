<?php
/**
 * Options: which of them visitors may see.
 *
 * Any option may be shown on any page, so a change purges the whole blog, unless the option is known bookkeeping. During an
 * anonymous page view it is the other way round: only options known to be visible purge. A plugin that counts views in an
 * option would otherwise make every page stale by showing it.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Options {

	const BOOKKEEPING = '/^(_transient_|_site_transient_|_wp_session_|action_scheduler_|auto_core_update_|recovery_|finished_|_split_terms|wc_remote_|woocommerce_(queue|meta_box|admin_|marketing_|task_list|tracker|onboarding))|(\.lock|_lock|_children|_last_run|_last_checked|_last_sync|_last_updated|_last_scan|_timestamp|_last_error|_db_version|_heartbeat)$|^(cron|rewrite_rules|recently_edited|recently_activated|uninstall_plugins|db_version|initial_db_version|db_upgraded|can_compress_scripts|dismissed_update_core|admin_email_lifespan|new_admin_email|adminhash|https_detection_errors|fresh_site|secret|auth_key|auth_salt|logged_in_key|logged_in_salt|nonce_key|nonce_salt|user_count|blog_count|wp_force_deactivated_plugins|site_health.*|theme_switched|mailserver_.*|ping_sites|update_core|update_plugins|update_themes|auto_update_.*|auto_plugin_theme_update_emails|delete_blog_hash|moderation_keys|disallowed_keys)$/';

	const VISIBLE = '/^(blogname|blogdescription|home|siteurl|page_on_front|page_for_posts|show_on_front|posts_per_page|posts_per_rss|permalink_structure|category_base|tag_base|date_format|time_format|timezone_string|gmt_offset|start_of_week|WPLANG|template|stylesheet|active_plugins|sidebars_widgets|sticky_posts|site_icon|site_logo|blog_public|widget_.*|theme_mods_.*|nav_menu_options)$/';

	public static function watch(): void {
		foreach ( array( 'updated_option', 'added_option', 'deleted_option' ) as $hook ) {
			add_action( $hook, array( __CLASS__, 'changed' ), PHP_INT_MAX - 1, 1 );
		}
		foreach ( array( 'update_site_option', 'add_site_option', 'delete_site_option' ) as $hook ) {
			add_action( $hook, array( __CLASS__, 'network_changed' ), PHP_INT_MAX - 1, 1 );
		}
	}

	public static function changed( $option ): void {
		Pressroom_Direct::accounted( 'options', (string) $option );
		if ( self::matters( (string) $option ) ) {
			Pressroom_Purge::blog();
		}
	}

	public static function network_changed( $option ): void {
		if ( is_multisite() && self::matters( (string) $option ) ) {
			Pressroom_Purge::everything();
		}
	}

	public static function matters( string $option ): bool {
		if ( Pressroom_Edge::is_canonical() ) {
			return (bool) preg_match( self::VISIBLE, $option );
		}
		return ! preg_match( self::BOOKKEEPING, $option );
	}
}
