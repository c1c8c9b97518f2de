<?php
/**
 * Scheduled events belong to Pressroom's scheduler, which runs them on time also without visitors.
 *
 * So a page view spawns nothing. `DISABLE_WP_CRON` stays undefined: plugins and Site Health read it as "cron is broken".
 * `/wp-cron.php` still works for whoever calls it.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Cron {

	public static function leave_to_the_scheduler(): void {
		remove_action( 'init', 'wp_cron' );
		remove_action( 'wp_loaded', '_wp_cron', 20 );
	}
}
