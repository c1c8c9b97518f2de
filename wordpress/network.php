<?php
/**
 * A site becomes a network, and a network's blogs follow its address. Part of `install.php`, which loads WordPress as a single
 * site for it: the tables may not be there yet, or know blogs at an address that nobody asks for.
 *
 * Always: each step may be done twice, and one that was not finished is done again. Blogs move before the network does, so a move
 * that was interrupted is found by the network's old domain.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Install_Network {

	const KINDS = array( 'subdirectories', 'subdomains' );

	/**
	 * Makes or moves the network of a wish.
	 *
	 * @param array $wish   As `install.php` read it.
	 * @param bool  $is_new Whether WordPress was installed just now.
	 * @return string `made`, `moved` or `there`; an exception says what is wrong.
	 */
	public static function settle( array $wish, bool $is_new ): string {
		self::name_tables();
		if ( ! self::exists() ) {
			self::make( $wish, $is_new );
			return 'made';
		}
		$kind = self::KINDS[ (int) self::meta( 'subdomain_install' ) ];
		if ( $kind !== $wish['network'] ) {
			throw new RuntimeException( "the database holds a network of $kind, which cannot become one of {$wish['network']}" );
		}
		return self::move( $wish['url'] ) ? 'moved' : 'there';
	}

	/** Which kind of network is in the database; null: none. */
	public static function found(): ?string {
		self::name_tables();
		return self::exists() ? self::KINDS[ (int) self::meta( 'subdomain_install' ) ] : null;
	}

	/** A single site does not know these tables' names. */
	private static function name_tables(): void {
		global $wpdb;
		foreach ( $wpdb->tables( 'ms_global' ) as $table => $name ) {
			$wpdb->$table = $name;
		}
	}

	/** The main blog's row comes last, when all else is there that a network cannot do without. */
	private static function exists(): bool {
		global $wpdb;
		$has_tables = $wpdb->get_var( $wpdb->prepare( 'SHOW TABLES LIKE %s', $wpdb->esc_like( $wpdb->blogs ) ) );
		return $has_tables && null !== $wpdb->get_var( "SELECT blog_id FROM $wpdb->blogs WHERE blog_id = 1" );
	}

	private static function meta( string $key ): ?string {
		global $wpdb;
		return $wpdb->get_var( $wpdb->prepare( "SELECT meta_value FROM $wpdb->sitemeta WHERE site_id = 1 AND meta_key = %s", $key ) );
	}

	private static function make( array $wish, bool $is_new ): void {
		global $wpdb, $wp_rewrite;
		require_once ABSPATH . 'wp-admin/includes/network.php';
		install_network();
		if ( null !== $wpdb->get_var( "SELECT blog_id FROM $wpdb->blogs LIMIT 1" ) ) {
			throw new RuntimeException( 'the database holds blogs of a network whose main blog is not number 1' );
		}
		// What a run that died half way has left.
		$wpdb->query( "TRUNCATE TABLE $wpdb->site" );
		$wpdb->query( "TRUNCATE TABLE $wpdb->sitemeta" );
		// Links of an existing site go on working: WordPress would put /blog/ in front of them.
		$permalinks = $is_new ? '/%postname%/' : (string) $wpdb->get_var( "SELECT option_value FROM $wpdb->options WHERE option_name = 'permalink_structure'" );
		$admin      = self::administrator( $wish['user'] );
		wp_set_current_user( $admin->ID );
		add_filter(
			'pre_update_option_permalink_structure',
			static function () use ( $permalinks ) {
				return $permalinks;
			}
		);
		$result = populate_network( 1, self::authority( $wish['url'] ), $admin->user_email, $wish['title'], '/', 'subdomains' === $wish['network'] );
		// It asks a sub-domain over HTTP whether the DNS has a wildcard. That is not known here, and nobody answers yet.
		if ( is_wp_error( $result ) && 'no_wildcard_dns' !== $result->get_error_code() ) {
			throw new RuntimeException( 'WordPress made no network: ' . wp_strip_all_tags( $result->get_error_message() ) );
		}
		$wp_rewrite->set_permalink_structure( $permalinks );
		update_option( 'rewrite_rules', '' );
		foreach ( array( 'home', 'siteurl' ) as $name ) {
			$wpdb->update( $wpdb->options, array( 'option_value' => $wish['url'] ), array( 'option_name' => $name ) );
		}
		if ( is_int( $wish['upload_limit'] ?? null ) ) {
			$wpdb->update( $wpdb->sitemeta, array( 'meta_value' => intdiv( $wish['upload_limit'], 1024 ) ), array( 'site_id' => 1, 'meta_key' => 'fileupload_maxk' ) );
		}
		if ( ! self::exists() ) {
			throw new RuntimeException( 'WordPress made no network: ' . $wpdb->last_error );
		}
	}

	/** Who was wished for, else the first administrator there is. */
	private static function administrator( string $login ): WP_User {
		$user = get_user_by( 'login', $login );
		if ( $user && user_can( $user, 'manage_options' ) ) {
			return $user;
		}
		$users = get_users( array( 'role' => 'administrator', 'orderby' => 'ID', 'number' => 1 ) );
		if ( ! $users ) {
			throw new RuntimeException( 'a network needs an administrator, and the site has none' );
		}
		return $users[0];
	}

	/** Host and port, as the tables have them. */
	private static function authority( string $url ): string {
		return (string) preg_replace( '~^[a-z]+://|/.*$~i', '', $url );
	}

	/** Gives the network and its blogs the address of this URL; false: they have it. */
	private static function move( string $url ): bool {
		global $wpdb;
		$old    = (string) $wpdb->get_var( "SELECT domain FROM $wpdb->site WHERE id = 1" );
		$new    = self::authority( $url );
		$scheme = (string) parse_url( $url, PHP_URL_SCHEME );
		if ( $old === $new ) {
			return false;
		}
		foreach ( $wpdb->get_results( "SELECT blog_id, domain FROM $wpdb->blogs WHERE site_id = 1" ) as $blog ) {
			$domain = self::moved( $blog->domain, $old, $new );
			if ( $domain === $blog->domain ) {
				continue;
			}
			// `get_blog_prefix()` knows blogs only where there is a network.
			$options = $wpdb->base_prefix . ( '1' === $blog->blog_id ? '' : $blog->blog_id . '_' ) . 'options';
			foreach ( $wpdb->get_results( "SELECT option_name, option_value FROM $options WHERE option_name IN ('home','siteurl')" ) as $option ) {
				$value = self::moved_url( $option->option_value, $blog->domain, "$scheme://$domain" );
				$wpdb->update( $options, array( 'option_value' => $value ), array( 'option_name' => $option->option_name ) );
			}
			$wpdb->update( $wpdb->blogs, array( 'domain' => $domain ), array( 'blog_id' => $blog->blog_id ) );
		}
		$siteurl = self::moved_url( (string) self::meta( 'siteurl' ), $old, "$scheme://$new" );
		$wpdb->update( $wpdb->sitemeta, array( 'meta_value' => $siteurl ), array( 'site_id' => 1, 'meta_key' => 'siteurl' ) );
		$wpdb->update( $wpdb->site, array( 'domain' => $new ), array( 'id' => 1 ) );
		return true;
	}

	/** A blog's host and port after the network's went from `$old` to `$new`: a host of its own stays, with the new port. */
	private static function moved( string $domain, string $old, string $new ): string {
		list( $host, $port )         = explode( ':', $domain, 2 ) + array( '', '' );
		list( $old_host, $old_port ) = explode( ':', $old, 2 ) + array( '', '' );
		list( $new_host, $new_port ) = explode( ':', $new, 2 ) + array( '', '' );
		$below                       = '.' . preg_replace( '/^www\./', '', $old_host );
		if ( $host === $old_host ) {
			$host = $new_host;
		} elseif ( substr( $host, -strlen( $below ) ) === $below ) {
			$host = substr( $host, 0, -strlen( $below ) ) . '.' . preg_replace( '/^www\./', '', $new_host );
		}
		$port = $port === $old_port ? $new_port : $port;
		return '' === $port ? $host : "$host:$port";
	}

	private static function moved_url( string $url, string $domain, string $to ): string {
		return (string) preg_replace( '~^https?://' . preg_quote( $domain, '~' ) . '(?=/|$)~i', $to, $url );
	}
}
