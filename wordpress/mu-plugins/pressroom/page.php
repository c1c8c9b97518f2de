<?php
/**
 * Whether a finished page may be stored: PHP's word, given only for reasons, never for lack of objections.
 *
 * The reason for: WordPress came to its normal end. A template returned (it is included by a wrapper, so `exit` inside it shows),
 * a feed's or robots' last hook ran, REST wrote its answer, a sitemap is closed, or a permanent redirect was sent.
 * The reasons against: anything that looks like one visitor's: a user, a session, a cookie, `DONOTCACHEPAGE`, a preview, a password
 * form, `Cache-Control` or `Vary` that say so; a fatal error; a request that was cut off.
 *
 * Always: in doubt no.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Page {

	const LIFETIME       = 3600;
	const LIFETIME_SHORT = 60;

	/** @var string|null What proves the normal end. */
	private static $ended = null;

	/** @var string|null The first objection met on the way. */
	private static $objection = null;

	/** @var int|null When the youngest nonce of the page stops being accepted. */
	private static $nonce_until = null;

	/** @var string The theme's template, for the wrapper. */
	private static $template = '';

	public static function watch(): void {
		add_filter( 'template_include', array( __CLASS__, 'wrap' ), PHP_INT_MAX );
		add_action( 'template_redirect', array( __CLASS__, 'prepare' ), 0 );
		add_action( 'do_robots', array( __CLASS__, 'robots_end' ), PHP_INT_MAX );
		add_filter( 'wp_redirect', array( __CLASS__, 'redirect' ), PHP_INT_MAX, 2 );
		add_filter( 'rest_pre_echo_response', array( __CLASS__, 'rest_end' ), PHP_INT_MAX );
		add_filter( 'post_password_required', array( __CLASS__, 'password' ), PHP_INT_MAX, 2 );
		add_filter( 'nonce_life', array( __CLASS__, 'nonce' ), PHP_INT_MAX );
		add_action( 'set_current_user', array( __CLASS__, 'user' ), PHP_INT_MAX );
		add_filter( 'wp_die_handler', array( __CLASS__, 'died' ), PHP_INT_MAX );
	}

	// --- The way ---------------------------------------------------------------------------------------------------------

	/** The wrapper includes the template and says when it returned. */
	public static function wrap( $template ) {
		if ( ! is_string( $template ) || '' === $template ) {
			return $template;
		}
		self::$template = $template;
		return __DIR__ . '/template.php';
	}

	public static function template(): string {
		return self::$template;
	}

	public static function ended( string $how ): void {
		self::$ended = $how;
	}

	public static function prepare(): void {
		if ( is_feed() ) {
			$feed = get_query_var( 'feed' );
			$feed = '' === $feed || 'feed' === $feed ? get_default_feed() : $feed;
			add_action( "do_feed_$feed", static function () {
				self::ended( 'feed' );
			}, PHP_INT_MAX );
		}
		if ( '' !== (string) get_query_var( 'sitemap' ) || '' !== (string) get_query_var( 'sitemap-stylesheet' ) ) {
			// Core ends a sitemap by `exit`, so the proof is in its last bytes.
			ob_start( static function ( $output ) {
				if ( preg_match( '~</(urlset|sitemapindex|xsl:stylesheet)>\s*$~', $output ) ) {
					self::ended( 'sitemap' );
				}
				return $output;
			} );
		}
		if ( is_404() ) {
			self::let_a_404_be_stored();
		}
	}

	/** Core forbids storing any 404. Ours are purged when something appears; browsers still ask each time. */
	private static function let_a_404_be_stored(): void {
		$core = wp_get_nocache_headers();
		if ( headers_sent() || ! in_array( 'Cache-Control: ' . ( $core['Cache-Control'] ?? '' ), headers_list(), true ) ) {
			return;
		}
		header( 'Cache-Control: max-age=0, must-revalidate' );
		header_remove( 'Expires' );
	}

	public static function robots_end(): void {
		self::ended( 'robots' );
	}

	public static function redirect( $location, $status = 302 ) {
		if ( $location && in_array( (int) $status, array( 301, 308 ), true ) ) {
			self::ended( 'redirect' );
		}
		return $location;
	}

	public static function rest_end( $result ) {
		self::ended( 'rest' );
		return $result;
	}

	/** In a list a protected post looks the same to everybody who brought no cookie; its own page is about to get one. */
	public static function password( $required, $post = null ) {
		if ( $required && did_action( 'wp' ) && is_singular() && isset( $post->ID ) && get_queried_object_id() === (int) $post->ID ) {
			self::object( 'a post asks for its password' );
		}
		return $required;
	}

	public static function nonce( $life ) {
		$half  = max( 1, (int) $life / 2 );
		$until = (int) ( ( ceil( time() / $half ) + 1 ) * $half );

		self::$nonce_until = null === self::$nonce_until ? $until : min( self::$nonce_until, $until );
		return $life;
	}

	public static function user(): void {
		if ( get_current_user_id() ) {
			self::object( 'a user was set' );
		}
	}

	public static function died( $handler ) {
		self::object( 'wp_die()' );
		return $handler;
	}

	private static function object( string $why ): void {
		self::$objection = self::$objection ?? $why;
	}

	// --- The verdict -----------------------------------------------------------------------------------------------------

	/** Why the page may not be stored; null: it may. */
	public static function objection(): ?string {
		$error = error_get_last();
		if ( $error && ( $error['type'] & ( E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR | E_RECOVERABLE_ERROR ) ) ) {
			return 'fatal error: ' . strtok( $error['message'], "\n" );
		}
		if ( null !== self::$objection ) {
			return self::$objection;
		}
		if ( null === self::$ended ) {
			return 'WordPress did not come to its normal end';
		}
		if ( connection_status() !== CONNECTION_NORMAL ) {
			return 'the connection was cut';
		}
		if ( defined( 'DONOTCACHEPAGE' ) && DONOTCACHEPAGE ) {
			return 'DONOTCACHEPAGE';
		}
		if ( session_status() === PHP_SESSION_ACTIVE || '' !== (string) session_id() || isset( $_SESSION ) ) {
			return 'a session was opened';
		}
		if ( is_user_logged_in() ) {
			return 'logged in';
		}
		if ( is_admin() || wp_doing_ajax() || wp_doing_cron() || ( defined( 'XMLRPC_REQUEST' ) && XMLRPC_REQUEST ) ) {
			return 'not a page of the site';
		}
		if ( isset( $_SERVER['HTTP_AUTHORIZATION'] ) || isset( $_SERVER['PHP_AUTH_USER'] ) || isset( $_SERVER['HTTP_X_WP_NONCE'] ) ) {
			return 'the request carries credentials';
		}
		if ( isset( $_GET['preview'] ) || isset( $_GET['preview_id'] ) || isset( $_GET['_wpnonce'] ) || isset( $_GET['customize_changeset_uuid'] )
			|| ( did_action( 'wp' ) && ( is_preview() || is_customize_preview() ) ) ) {
			return 'a preview';
		}
		if ( function_exists( 'is_checkout' ) && did_action( 'wp' ) && ( is_checkout() || is_cart() || is_account_page() ) ) {
			return 'cart, checkout or account';
		}
		return self::objection_in_headers( headers_list(), http_response_code() );
	}

	/** @param string[] $headers */
	public static function objection_in_headers( array $headers, $status ): ?string {
		if ( ! in_array( (int) $status, array( 200, 301, 308, 404, 410 ), true ) ) {
			return "status $status";
		}
		foreach ( $headers as $header ) {
			list( $name, $value ) = array_map( 'trim', explode( ':', $header, 2 ) + array( '', '' ) );
			switch ( strtolower( $name ) ) {
				case 'set-cookie':
					return 'cookie set: ' . strtok( $value, '=' );
				case 'cache-control':
					if ( preg_match( '/(?<![\w-])(private|no-store|no-cache)(?![\w-])/i', $value, $match ) ) {
						return 'Cache-Control: ' . strtolower( $match[1] );
					}
					break;
				case 'vary':
					foreach ( array_filter( array_map( 'trim', explode( ',', strtolower( $value ) ) ) ) as $field ) {
						if ( ! in_array( $field, array( 'accept-encoding', 'origin' ), true ) ) {
							return "Vary: $field";
						}
					}
					break;
				case 'www-authenticate':
					return 'asks for credentials';
			}
		}
		return null;
	}

	/** Seconds the page may be called fresh. */
	public static function lifetime(): int {
		$short    = did_action( 'wp' ) && ( is_404() || is_search() );
		$lifetime = (int) apply_filters( 'pressroom_ttl', $short ? self::LIFETIME_SHORT : self::LIFETIME );
		if ( null !== self::$nonce_until ) {
			// Half of what is left: the page may be served stale for a while, and a form takes time to fill in.
			$lifetime = min( $lifetime, (int) ( ( self::$nonce_until - time() ) / 2 ) );
		}
		return max( 0, $lifetime );
	}
}
