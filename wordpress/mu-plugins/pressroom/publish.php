<?php
/**
 * On the author instance: what WordPress has changed becomes a release that all instances run, before the database names it.
 *
 * The agent listens on the desk's socket. It is told which part of the code was changed, by whom, and what was done; it answers when
 * every instance runs that, or why none does. Then its copy of the code is as it was, and WordPress shows the reason.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Publish {

	/** Seconds. A rollout takes two or three. */
	const PATIENCE = 280;

	/** Seconds in which an agent that has ended is back. */
	const PATIENCE_AWAY = 60;

	public static function watch( ?array $change ): void {
		// What has begun is finished: files that are half in place, or a database that does not name them, help nobody.
		ignore_user_abort( true );
		add_filter( 'upgrader_pre_install', array( __CLASS__, 'stay_active' ), 9 );
		add_filter( 'upgrader_pre_install', array( __CLASS__, 'stay_active_no_more' ), 11 );
		add_filter( 'upgrader_install_package_result', array( __CLASS__, 'installed' ), PHP_INT_MAX, 2 );
		add_action( 'deleted_plugin', array( __CLASS__, 'plugin_deleted' ), 0, 2 );
		add_action( 'deleted_theme', array( __CLASS__, 'theme_deleted' ), 0, 2 );
		add_action( '_core_updated_successfully', array( __CLASS__, 'core_updated' ), 0 );
		if ( 'edit' === ( $change['kind'] ?? '' ) ) {
			ob_start();
			add_action( 'shutdown', array( __CLASS__, 'edited' ), 0 );
		}
	}

	/**
	 * Filter `upgrader_pre_install`, around core's own `deactivate_plugin_before_upgrade`. That one would take the plugin away from all
	 * visitors, because on other hosts its files are missing for a while. Here they are not; the scheduler's updates do without it, too.
	 */
	public static function stay_active( $response ) {
		add_filter( 'wp_doing_cron', '__return_true', PHP_INT_MAX );
		return $response;
	}

	/** Filter `upgrader_pre_install`. */
	public static function stay_active_no_more( $response ) {
		remove_filter( 'wp_doing_cron', '__return_true', PHP_INT_MAX );
		return $response;
	}

	/** Filter `upgrader_install_package_result`: files are in their place, and the database does not name them yet. */
	public static function installed( $result, $extra ) {
		if ( ! is_array( $result ) || empty( $result['destination'] ) || ! is_string( $result['destination'] ) ) {
			return $result;
		}
		$part = self::part( $result['destination'] );
		if ( null === $part ) {
			return $result;
		}
		$refused = self::tell( array( $part ), self::what_was_done( $part, ! empty( $result['clear_destination'] ) || 'update' === ( ( (array) $extra )['action'] ?? '' ) ) );
		return $refused ?? $result;
	}

	/** Action `deleted_plugin`. */
	public static function plugin_deleted( $file, $deleted ): void {
		if ( ! $deleted ) {
			return;
		}
		$folder = dirname( $file );
		$part   = self::part( WP_PLUGIN_DIR . '/' . ( '.' === $folder ? $file : $folder ) );
		if ( null !== $part ) {
			self::complain( self::tell( array( $part ), "Delete the plugin $file" ) );
		}
	}

	/** Action `deleted_theme`. */
	public static function theme_deleted( $stylesheet, $deleted ): void {
		$part = self::part( get_theme_root( $stylesheet ) . '/' . $stylesheet );
		if ( $deleted && null !== $part ) {
			self::complain( self::tell( array( $part ), "Delete the theme $stylesheet" ) );
		}
	}

	/** Action `_core_updated_successfully`. Its tables are brought up to date by the platform. */
	public static function core_updated( $version ): void {
		$refused = self::tell( array( 'core', 'wp-content/languages' ), "Update WordPress to $version" );
		if ( null !== $refused ) {
			wp_die( esc_html( $refused->get_error_message() ), '', array( 'response' => 500 ) );
		}
	}

	/** Action `shutdown` of an editor's request: the answer is still here. */
	public static function edited(): void {
		$file = wp_unslash( $_REQUEST['file'] ?? '' );
		$base = empty( $_REQUEST['plugin'] ) ? get_theme_root( wp_unslash( $_REQUEST['theme'] ?? '' ) ) . '/' . wp_unslash( $_REQUEST['theme'] ?? '' ) : WP_PLUGIN_DIR;
		$part = is_string( $file ) && '' !== $file ? self::part( $base . '/' . $file ) : null;
		// What could not be written whole (the disk is full), or was put back, is no edit.
		if ( null === $part || @file_get_contents( "$base/$file" ) !== wp_unslash( $_REQUEST['newcontent'] ?? null ) ) {
			return;
		}
		$refused = self::tell( array( $part ), "Edit $part" );
		if ( null === $refused ) {
			return;
		}
		while ( ob_get_level() > 0 && @ob_end_clean() ) {
			continue;
		}
		header_remove( 'Location' );
		if ( wp_doing_ajax() ) {
			wp_send_json_error( array( 'code' => 'php_error', 'message' => $refused->get_error_message() ) );
		}
		wp_die( esc_html( $refused->get_error_message() ), '', array( 'response' => 500, 'back_link' => true ) );
	}

	/** Where an action has no result that WordPress would show: the request ends with the reason. */
	private static function complain( ?WP_Error $refused ): void {
		if ( null === $refused ) {
			return;
		}
		if ( wp_doing_ajax() ) {
			wp_send_json_error( array( 'errorCode' => $refused->get_error_code(), 'errorMessage' => $refused->get_error_message() ) );
		}
		wp_die( esc_html( $refused->get_error_message() ), '', array( 'response' => 500, 'back_link' => true ) );
	}

	/** A path as the agent names parts of the code; null: it is not changed in wp-admin. */
	private static function part( string $path ): ?string {
		$root = wp_normalize_path( untrailingslashit( ABSPATH ) );
		$path = wp_normalize_path( untrailingslashit( $path ) );
		if ( $path === $root ) {
			return 'core';
		}
		$part = 0 === strpos( $path, "$root/" ) ? substr( $path, strlen( $root ) + 1 ) : '';
		return preg_match( '#^wp-content/(?:(?:plugins|themes)/[^/]+|languages)(?:/|$)#D', $part ) ? $part : null;
	}

	private static function what_was_done( string $part, bool $was_there ): string {
		$done = $was_there ? 'Update' : 'Install';
		if ( 'core' === $part ) {
			return 'Update WordPress';
		}
		if ( 0 === strpos( $part, 'wp-content/languages' ) ) {
			return 'Update translations';
		}
		$name = basename( $part );
		if ( 0 === strpos( $part, 'wp-content/themes/' ) ) {
			wp_clean_themes_cache( false );
			$theme = wp_get_theme( $name );
			return "$done the theme " . ( $theme->exists() ? trim( $theme->get( 'Name' ) . ' ' . $theme->get( 'Version' ) ) : $name );
		}
		require_once ABSPATH . 'wp-admin/includes/plugin.php';
		wp_clean_plugins_cache( false );
		foreach ( get_plugins( is_dir( WP_PLUGIN_DIR . "/$name" ) ? "/$name" : '' ) as $file => $plugin ) {
			if ( is_dir( WP_PLUGIN_DIR . "/$name" ) || $file === $name ) {
				return "$done the plugin " . trim( "{$plugin['Name']} {$plugin['Version']}" );
			}
		}
		return "$done the plugin $name";
	}

	/**
	 * Tells the agent and waits; null: every instance runs it. An agent that ends before it has answered is asked again when it is
	 * back: it knows by the id what it has done.
	 */
	private static function tell( array $parts, string $message ): ?WP_Error {
		$user   = wp_get_current_user();
		$author = $user->exists() ? "$user->display_name <$user->user_email>" : 'WordPress';
		$id     = bin2hex( random_bytes( 16 ) );
		$line   = wp_json_encode( compact( 'id', 'parts', 'author', 'message' ), JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE );
		$why    = 'the platform gave no answer';
		set_time_limit( 0 );
		$until = time() + self::PATIENCE;
		for ( $away = time() + self::PATIENCE_AWAY; time() < min( $away, $until ); usleep( 100000 ) ) {
			$desk = @stream_socket_client( 'unix://' . getenv( 'PRESSROOM_AUTHOR' ), $code, $error, 2 );
			if ( ! $desk ) {
				$why = "the platform cannot be reached ($error)";
				continue;
			}
			stream_set_timeout( $desk, max( 1, $until - time() ) );
			@fwrite( $desk, "$line\n" );
			$answer = json_decode( (string) @fgets( $desk ), true );
			fclose( $desk );
			if ( is_array( $answer ) && isset( $answer['release'] ) ) {
				return null;
			}
			if ( is_array( $answer ) && isset( $answer['refused'] ) ) {
				return self::refusal( (string) $answer['refused'] );
			}
			$away = time() + self::PATIENCE_AWAY;
		}
		return self::refusal( $why );
	}

	private static function refusal( string $why ): WP_Error {
		return new WP_Error( 'pressroom_refused', "The site goes on with the code that it had: $why" );
	}
}
