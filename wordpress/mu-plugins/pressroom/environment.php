<?php
/**
 * An environment is a copy of a site for trying things: nothing of it may reach the site's customers.
 *
 * Mail stays in a mailbox, search engines are refused, nobody can pay, events and webhooks rest. What of that is wanted back is said
 * when the environment is made. The password in front of it, and the header for search engines, are the edge's; WordPress's
 * requests to itself bring a key along, so that Site Health and the editors' checks pass the door.
 *
 * Deliberately missing: holding back what a plugin does over connections of its own.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Environment {

	public static function is_one(): bool {
		return defined( 'PRESSROOM_ENVIRONMENT' );
	}

	public static function watch(): void {
		if ( ! self::is_one() ) {
			return;
		}
		require_once __DIR__ . '/mailbox.php';
		$last = PHP_INT_MAX;
		foreach ( array( 'pre_option_blog_public', 'default_option_blog_public' ) as $filter ) {
			add_filter( $filter, array( __CLASS__, 'not_public' ), $last );
		}
		if ( ! PRESSROOM_PAYMENTS ) {
			foreach ( array( 'woocommerce_available_payment_gateways', 'edd_enabled_payment_gateways' ) as $filter ) {
				add_filter( $filter, '__return_empty_array', $last );
			}
		}
		if ( ! PRESSROOM_CRON ) {
			add_filter( 'pre_get_ready_cron_jobs', '__return_empty_array', $last );
			add_filter( 'action_scheduler_allow_async_request_runner', '__return_false', $last );
			add_filter( 'woocommerce_webhook_should_deliver', '__return_false', $last );
		}
		add_filter( 'big_image_size_threshold', array( __CLASS__, 'own_before_scaling' ), 1, 4 );
		add_filter( 'intermediate_image_sizes_advanced', array( __CLASS__, 'own_before_sizes' ), 1, 3 );
		add_filter( 'http_request_args', array( __CLASS__, 'open_own_door' ), 10, 2 );
		add_action( 'admin_bar_menu', array( __CLASS__, 'name_it' ), 1 );
	}

	/** Filter `pre_option_blog_public`. */
	public static function not_public(): string {
		return '0';
	}

	/** Filter `big_image_size_threshold`: an image is about to be made again. */
	public static function own_before_scaling( $threshold, $size = null, $file = '', $id = 0 ) {
		self::own( (int) $id );
		return $threshold;
	}

	/** Filter `intermediate_image_sizes_advanced`: its sizes are about to be made again. */
	public static function own_before_sizes( $sizes, $meta = null, $id = 0 ) {
		self::own( (int) $id );
		return $sizes;
	}

	/**
	 * Media may be second names of the site's own files, to which we cannot write. Image editors write in place, so an image
	 * that they are about to make again becomes a file of ours before.
	 */
	private static function own( int $id ): void {
		$file = $id ? get_attached_file( $id, true ) : '';
		if ( ! $file ) {
			return;
		}
		$stem = preg_replace( '/(-scaled|-rotated)?\.[^.\/]+$/', '', $file );
		foreach ( glob( addcslashes( $stem, '*?[]\\' ) . '*' ) ?: array() as $path ) {
			if ( is_file( $path ) && ! is_writable( $path ) && @copy( $path, "$path.own" ) && ! @rename( "$path.own", $path ) ) {
				@unlink( "$path.own" );
			}
		}
	}

	/** Filter `http_request_args`: a request to this site itself. */
	public static function open_own_door( $args, $url ) {
		$own = wp_parse_url( home_url() );
		$to  = wp_parse_url( (string) $url );
		if ( ! is_array( $to ) || ! is_array( $args ) || ( $to['scheme'] ?? '' ) !== ( $own['scheme'] ?? '' ) || ( $to['host'] ?? '' ) !== ( $own['host'] ?? '' ) || ( $to['port'] ?? 0 ) !== ( $own['port'] ?? 0 ) ) {
			return $args;
		}
		$headers = $args['headers'] ?? array();
		if ( is_array( $headers ) && ! array_key_exists( 'authorization', array_change_key_case( $headers ) ) ) {
			$args['headers'] = $headers + array( 'Authorization' => 'Basic ' . base64_encode( 'self:' . PRESSROOM_CRON_KEY ) );
		}
		return $args;
	}

	/** Action `admin_bar_menu`: nobody shall take it for the site. */
	public static function name_it( $bar ): void {
		$bar->add_node(
			array(
				'id'    => 'pressroom-environment',
				'title' => '<span style="background:#b32d2e;color:#fff;padding:2px 8px">' . esc_html( PRESSROOM_ENVIRONMENT ) . '</span>',
				'meta'  => array( 'title' => 'A copy: no mail leaves it, nobody can pay, no search engine comes.' ),
			)
		);
	}
}
