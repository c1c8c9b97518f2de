<?php
/**
 * Requests that change code: ordinary instances send them on to the author instance, which verifies them again.
 *
 * Ordinary instances cannot write code. One of them gets every request first; here, before any plugin is loaded, it recognises
 * those that install, update, edit or delete code, verifies session, capability and nonce, and answers with one header. The
 * edge then sends the same request to the author instance (see publish.php). What is not verified stays here, where
 * WordPress refuses it in its own words.
 *
 * Always: on the author instance no plugin is loaded for a request that was not verified there.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Author {

	const HEADER = 'X-Pressroom-Author';

	/** Capabilities of people who change code in some way. */
	const CAPABILITIES = array( 'install_plugins', 'update_plugins', 'delete_plugins', 'edit_plugins', 'install_themes', 'update_themes', 'delete_themes', 'edit_themes', 'update_core', 'update_languages' );

	/** Pages of wp-admin with buttons that change code, and the one that their users see first. */
	const PAGES = array( 'index', 'plugins', 'plugin-install', 'themes', 'theme-install', 'update-core', 'plugin-editor', 'theme-editor' );

	public static function watch(): void {
		if ( 'cli' === PHP_SAPI || ( defined( 'DISALLOW_FILE_MODS' ) && DISALLOW_FILE_MODS ) ) {
			return;
		}
		if ( self::is_here() ) {
			if ( self::is_the_scheduler() ) {
				Pressroom_Publish::watch( null );
				Pressroom_Updates::update_automatically();
				return;
			}
			self::admit();
			Pressroom_Publish::watch( self::change() );
			return;
		}
		if ( '1' !== ( $_SERVER['PRESSROOM_KEPT'] ?? '' ) ) {
			return;
		}
		if ( self::is_loopback() ) {
			self::send_on( 'loopback' );
		}
		$change = self::change();
		if ( null !== $change && self::may( $change ) ) {
			self::send_on( 'change' );
		}
		// Code that no rule above knew (licence pages, page builders) is caught when WordPress's upgrader begins.
		add_filter( 'upgrader_package_options', array( __CLASS__, 'late' ), PHP_INT_MIN );
		foreach ( self::PAGES as $page ) {
			add_action( "load-$page.php", array( __CLASS__, 'soon' ) );
		}
	}

	/** Actions `load-…` of pages with buttons that change code: the author instance is started before one is clicked. */
	public static function soon(): void {
		if ( ! headers_sent() && self::has_capability() ) {
			header( self::HEADER . ': soon' );
		}
	}

	/** Whether this is the author instance. */
	public static function is_here(): bool {
		return '' !== (string) getenv( 'PRESSROOM_AUTHOR' );
	}

	/** The agent asks for automatic updates by a parameter that no client can send, with a key that only this site has. */
	private static function is_the_scheduler(): bool {
		return isset( $_SERVER['PRESSROOM_AUTO_UPDATE'] ) && defined( 'PRESSROOM_CRON_KEY' ) && hash_equals( PRESSROOM_CRON_KEY, (string) $_SERVER['PRESSROOM_AUTO_UPDATE'] );
	}

	/** Filter `upgrader_package_options`: nothing was downloaded or written yet. */
	public static function late( $options ) {
		if ( self::is_from_here() && self::has_capability() ) {
			self::send_on( 'change' );
		}
		return $options;
	}

	/** Ends this request: the edge sends it on. */
	private static function send_on( string $word ): void {
		while ( ob_get_level() > 0 && @ob_end_clean() ) {
			continue;
		}
		if ( headers_sent() ) {
			return;
		}
		header_remove();
		http_response_code( 200 );
		header( self::HEADER . ': ' . $word );
		header( 'Cache-Control: no-store' );
		exit;
	}

	/** Lets a verified request in, and nobody else. */
	private static function admit(): void {
		if ( ! self::has_come_whole() ) {
			self::refuse( 400, 'This request has not come whole.' );
		}
		$change = self::change();
		if ( self::is_loopback() || ( null !== $change && self::may( $change ) ) || ( null === $change && self::is_from_here() && self::has_capability() ) ) {
			return;
		}
		self::refuse( 403, 'This request may not change code.' );
	}

	/** @return never */
	private static function refuse( int $status, string $why ): void {
		http_response_code( $status );
		header( 'Content-Type: text/plain; charset=utf-8' );
		header( 'Cache-Control: no-store' );
		echo "$why\n";
		exit;
	}

	/** Whose sender left in the middle would be a file with its end missing. (Of an upload PHP says so itself.) */
	private static function has_come_whole(): bool {
		if ( 0 === stripos( (string) ( $_SERVER['CONTENT_TYPE'] ?? '' ), 'multipart/form-data' ) ) {
			return true;
		}
		return strlen( (string) file_get_contents( 'php://input' ) ) >= (int) ( $_SERVER['CONTENT_LENGTH'] ?? 0 );
	}

	/** WordPress asks its own site whether an edit broke it, with a key that it keeps for a minute. */
	private static function is_loopback(): bool {
		if ( ! isset( $_REQUEST['wp_scrape_key'], $_REQUEST['wp_scrape_nonce'] ) || ! is_string( $_REQUEST['wp_scrape_key'] ) || ! is_string( $_REQUEST['wp_scrape_nonce'] ) ) {
			return false;
		}
		$key   = substr( preg_replace( '/[^a-z0-9_-]/', '', strtolower( $_REQUEST['wp_scrape_key'] ) ), 0, 32 );
		$known = get_transient( 'scrape_key_' . $key );
		return is_string( $known ) && '' !== $known && hash_equals( $known, $_REQUEST['wp_scrape_nonce'] );
	}

	/**
	 * What code this request changes.
	 *
	 * @return array{capability:string,nonce:string,key:string,kind:string}|null Null: none that is known here.
	 */
	public static function change(): ?array {
		$route = self::route();
		if ( null !== $route ) {
			return $route;
		}
		if ( ! preg_match( '#/wp-admin/(?:network/)?([a-z-]+)\.php$#D', (string) ( $_SERVER['SCRIPT_NAME'] ?? '' ), $matches ) ) {
			return null;
		}
		$action = self::word( 'action' );
		if ( '' === $action || '-1' === $action ) {
			$action = self::word( 'action2' );
		}
		switch ( $matches[1] ) {
			case 'update':
				return self::update( $action );
			case 'update-core':
				$capabilities = array(
					'do-core-upgrade'        => array( 'update_core', 'upgrade-core' ),
					'do-core-reinstall'      => array( 'update_core', 'upgrade-core' ),
					'do-translation-upgrade' => array( 'update_languages', 'upgrade-translations' ),
				);
				return isset( $capabilities[ $action ] ) ? self::described( $capabilities[ $action ][0], $capabilities[ $action ][1] ) : null;
			case 'plugins':
				return 'delete-selected' === $action && isset( $_REQUEST['verify-delete'] ) ? self::described( 'delete_plugins', 'bulk-plugins' ) : null;
			case 'themes':
				if ( 'delete' === $action ) {
					return self::described( 'delete_themes', 'delete-theme_' . self::word( 'stylesheet' ) );
				}
				return 'delete-selected' === $action && isset( $_REQUEST['verify-delete'] ) ? self::described( 'delete_themes', 'bulk-themes' ) : null;
			case 'plugin-editor':
			case 'theme-editor':
				if ( 'POST' === ( $_SERVER['REQUEST_METHOD'] ?? '' ) && isset( $_REQUEST['newcontent'] ) ) {
					return self::edit();
				}
				// The editor has a button only where the file can be written. Looking needs no nonce.
				return self::described( 'plugin-editor' === $matches[1] ? 'edit_plugins' : 'edit_themes', '', '', 'look' );
			case 'admin-ajax':
				return self::ajax( $action );
		}
		return null;
	}

	private static function update( string $action ): ?array {
		switch ( $action ) {
			case 'update-selected':
				return self::described( 'update_plugins', 'bulk-update-plugins' );
			case 'update-selected-themes':
				return self::described( 'update_themes', 'bulk-update-themes' );
			case 'upgrade-plugin':
				return self::described( 'update_plugins', 'upgrade-plugin_' . self::word( 'plugin' ) );
			case 'install-plugin':
				return self::described( 'install_plugins', 'install-plugin_' . self::word( 'plugin' ) );
			case 'upload-plugin':
				return self::described( 'upload_plugins', 'plugin-upload' );
			case 'upgrade-theme':
				return self::described( 'update_themes', 'upgrade-theme_' . self::word( 'theme' ) );
			case 'install-theme':
				return self::described( 'install_themes', 'install-theme_' . self::word( 'theme' ) );
			case 'upload-theme':
				return self::described( 'upload_themes', 'theme-upload' );
		}
		return null;
	}

	private static function ajax( string $action ): ?array {
		if ( 'edit-theme-plugin-file' === $action ) {
			return self::edit();
		}
		if ( ! preg_match( '/^(install|update|delete)-(plugin|theme)$/D', $action, $matches ) ) {
			return null;
		}
		return self::described( "$matches[1]_$matches[2]s", 'updates', isset( $_REQUEST['_ajax_nonce'] ) ? '_ajax_nonce' : '_wpnonce' );
	}

	private static function edit(): array {
		$file = self::word( 'file' );
		if ( '' !== self::word( 'plugin' ) ) {
			return self::described( 'edit_plugins', 'edit-plugin_' . $file, 'nonce', 'edit' );
		}
		return self::described( 'edit_themes', 'edit-theme_' . self::word( 'theme' ) . '_' . $file, 'nonce', 'edit' );
	}

	/** REST: `wp/v2/plugins` installs by POST and deletes by DELETE; its PUT changes the database only. */
	private static function route(): ?array {
		$route = self::word( 'rest_route' );
		if ( '' === $route ) {
			$path  = (string) parse_url( (string) ( $_SERVER['REQUEST_URI'] ?? '' ), PHP_URL_PATH );
			$route = preg_match( '#/wp-json(/.*)$#D', $path, $matches ) ? $matches[1] : '';
		}
		if ( ! preg_match( '#^/wp/v2/plugins(/.+)?$#D', rtrim( $route, '/' ), $matches ) ) {
			return null;
		}
		$method = strtoupper( $_SERVER['HTTP_X_HTTP_METHOD_OVERRIDE'] ?? $_REQUEST['_method'] ?? $_SERVER['REQUEST_METHOD'] ?? '' );
		if ( 'POST' === $method && empty( $matches[1] ) ) {
			return self::described( 'install_plugins', 'wp_rest', 'X-WP-Nonce' );
		}
		return 'DELETE' === $method ? self::described( 'delete_plugins', 'wp_rest', 'X-WP-Nonce' ) : null;
	}

	private static function described( string $capability, string $nonce, string $key = '_wpnonce', string $kind = 'upgrade' ): array {
		return compact( 'capability', 'nonce', 'key', 'kind' );
	}

	/** Whether the sender has a session, the capability and the nonce for a change. */
	private static function may( array $change ): bool {
		$nonce = 'X-WP-Nonce' === $change['key'] ? (string) ( $_SERVER['HTTP_X_WP_NONCE'] ?? self::word( '_wpnonce' ) ) : self::word( $change['key'] );
		return self::asked( static function () use ( $change, $nonce ) {
			$is_verified = 'look' === $change['kind'] || false !== wp_verify_nonce( $nonce, $change['nonce'] );
			return $is_verified && get_current_user_id() > 0 && current_user_can( $change['capability'] );
		} );
	}

	private static function has_capability(): bool {
		return self::asked( static function () {
			foreach ( self::CAPABILITIES as $capability ) {
				if ( get_current_user_id() > 0 && current_user_can( $capability ) ) {
					return true;
				}
			}
			return false;
		} );
	}

	/** Whether the request comes from a page of this site; without a nonce that we know, that is what tells. */
	private static function is_from_here(): bool {
		$from = (string) ( $_SERVER['HTTP_ORIGIN'] ?? $_SERVER['HTTP_REFERER'] ?? '' );
		$host = parse_url( $from, PHP_URL_HOST );
		$port = parse_url( $from, PHP_URL_PORT );
		return is_string( $host ) && strtolower( $host . ( $port ? ":$port" : '' ) ) === strtolower( (string) ( $_SERVER['HTTP_HOST'] ?? '' ) );
	}

	/** Asks WordPress about the user before its plugins can have a say; they will have theirs when they are loaded. */
	private static function asked( callable $question ): bool {
		if ( did_action( 'plugins_loaded' ) ) {
			return (bool) $question();
		}
		if ( is_multisite() ) {
			ms_cookie_constants();
		}
		wp_cookie_constants();
		require_once ABSPATH . WPINC . '/pluggable.php';
		$answer = (bool) $question();
		unset( $GLOBALS['current_user'], $GLOBALS['wp_roles'] );
		return $answer;
	}

	/** A parameter as it was sent: WordPress has not added slashes yet. */
	private static function word( string $name ): string {
		$value = $_REQUEST[ $name ] ?? '';
		return is_string( $value ) ? ( did_action( 'plugins_loaded' ) ? wp_unslash( $value ) : $value ) : '';
	}
}
