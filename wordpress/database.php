<?php
/**
 * A site's database without its WordPress, for scripts that must not run plugins. Needs the constants of `config/site.php`.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

/** The database of the site's configuration, or another one of the same server, seen in the same charset as WordPress does: lengths are in its bytes. */
function pressroom_database( ?string $name = null ): mysqli {
	mysqli_report( MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT );
	list( $host, $rest ) = preg_match( '/^(\[[^\]]*\]|[^:]*):(.*)$/', DB_HOST, $match ) ? array( trim( $match[1], '[]' ), $match[2] ) : array( DB_HOST, '' );
	list( $port, $path ) = '/' === ( $rest[0] ?? '' ) ? array( 0, $rest ) : explode( ':', $rest, 2 ) + array( '', '' );
	$database            = new mysqli( $host, DB_USER, DB_PASSWORD, $name ?? DB_NAME, (int) $port, $path );
	$charset             = defined( 'DB_CHARSET' ) && '' !== DB_CHARSET ? DB_CHARSET : 'utf8mb4';
	$database->set_charset( 'utf8' === $charset ? 'utf8mb4' : $charset );
	return $database;
}
