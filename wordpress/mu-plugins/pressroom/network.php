<?php
/**
 * New blogs of a network get an address that works: with the port that the network is served at, and its scheme.
 *
 * WordPress drops the colon of a port when it saves a blog's domain, and gives blogs of a network of sub-domains `http://`,
 * because they might lack a certificate. Here the edge serves all of them as it serves the main one.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Network {

	/** @var string|null What a domain was before it was cleaned. */
	private static $domain = null;

	public static function watch(): void {
		if ( ! is_multisite() || ! defined( 'PRESSROOM_HOME' ) ) {
			return;
		}
		add_filter( 'wp_normalize_site_data', array( __CLASS__, 'before' ), 9 );
		add_filter( 'wp_normalize_site_data', array( __CLASS__, 'after' ), 11 );
		add_filter( 'wp_initialize_site_args', array( __CLASS__, 'address' ), 10, 2 );
	}

	/** Filter `wp_normalize_site_data`, before WordPress cleans the domain. */
	public static function before( $data ) {
		self::$domain = is_array( $data ) && is_string( $data['domain'] ?? null ) ? trim( $data['domain'] ) : null;
		return $data;
	}

	/** Filter `wp_normalize_site_data`, after it: the network's port comes back. */
	public static function after( $data ) {
		$port = parse_url( PRESSROOM_HOME, PHP_URL_PORT );
		if ( $port && null !== self::$domain && preg_match( "/^(.+):$port\$/D", self::$domain, $match ) && "$match[1]$port" === ( $data['domain'] ?? null ) ) {
			$data['domain'] = self::$domain;
		}
		self::$domain = null;
		return $data;
	}

	/** Filter `wp_initialize_site_args`: home and siteurl of a new blog, unless its maker says them. */
	public static function address( $args, $site ) {
		$url = parse_url( PRESSROOM_HOME, PHP_URL_SCHEME ) . '://' . untrailingslashit( $site->domain . $site->path );

		$args['options'] = (array) ( $args['options'] ?? array() ) + array(
			'home'    => $url,
			'siteurl' => $url,
		);
		return $args;
	}
}
