<?php
/**
 * Uploads of networks that were made before WordPress 3.5: blogs but the main one have theirs in `blogs.dir/NUMBER/files`, and
 * show them as `/files/…`, which `ms-files.php` answers. Here `blogs.dir` lies among the uploads, so that such files are on every
 * node and are served as others are; the addresses that texts have of them lead there.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Files {

	/** For how long a browser may remember where an address leads, in seconds. */
	const REMEMBERED = 86400;

	public static function watch(): void {
		if ( ! is_multisite() || ! get_site_option( 'ms_files_rewriting' ) ) {
			return;
		}
		add_filter( 'upload_dir', array( __CLASS__, 'place' ), 1 );
		if ( ! is_main_site() ) {
			self::lead( (string) ( $_SERVER['REQUEST_URI'] ?? '' ), get_site()->path . 'files/' );
		}
	}

	/** Filter `upload_dir`: folders and addresses as they are here. */
	public static function place( $uploads ) {
		if ( ! is_array( $uploads ) || ! is_string( $uploads['basedir'] ?? null ) ) {
			return $uploads;
		}
		// A blog may still have the folder of another machine in its options.
		if ( ! preg_match( '#(?<!/uploads)/blogs\.dir/(\d+/files)/?$#D', $uploads['basedir'], $match ) ) {
			return $uploads;
		}
		$folder             = '/uploads/blogs.dir/' . $match[1];
		$uploads['basedir'] = WP_CONTENT_DIR . $folder;
		$uploads['baseurl'] = untrailingslashit( (string) get_option( 'siteurl' ) ) . '/wp-content' . $folder;
		$uploads['path']    = $uploads['basedir'] . $uploads['subdir'];
		$uploads['url']     = $uploads['baseurl'] . $uploads['subdir'];
		return $uploads;
	}

	/** Ends a request for a file by its former address. */
	private static function lead( string $uri, string $prefix ): void {
		$file = (string) substr( $uri, strlen( $prefix ) );
		if ( 0 !== strpos( $uri, $prefix ) || ! strcspn( $file, '?#' ) ) {
			return;
		}
		header( 'Location: ' . content_url( '/uploads/blogs.dir/' . get_current_blog_id() . '/files/' . $file ), true, 301 );
		header( 'Cache-Control: max-age=' . self::REMEMBERED );
		exit;
	}
}
