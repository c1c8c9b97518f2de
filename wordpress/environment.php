<?php
/**
 * Makes the users of a copied database this environment's own: `php environment.php [ROOT]`, with {"user": …, "password": …} on standard
 * input.
 *
 * The administrator gets the password: the named user if he may do everything, else the first one who may. Sessions, application
 * passwords and keys to reset a password are forgotten: whoever got in elsewhere is not in here by that.
 *
 * Prints {"user": login name}. Exit status 0; 1 bad input; 2 failure, with {"error": …}. Like rewrite.php it speaks to the database
 * alone; running it twice does no harm.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

if ( 'cli' !== PHP_SAPI ) {
	exit( 1 );
}

require __DIR__ . '/database.php';

( static function () use ( $argv ) {
	$end = static function ( array $result, int $status ): void {
		fwrite( STDOUT, json_encode( $result, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE ) . "\n" );
		exit( $status );
	};
	ini_set( 'display_errors', 'stderr' );
	try {
		$wish = json_decode( (string) stream_get_contents( STDIN ), true );
		if ( ! is_string( $wish['user'] ?? null ) || ! is_string( $wish['password'] ?? null ) || '' === $wish['password'] ) {
			$end( array( 'error' => '`user` and `password` are missing' ), 1 );
		}
		$root   = rtrim( $argv[1] ?? __DIR__, '/' );
		$config = getenv( 'PRESSROOM_CONFIG' ) ?: dirname( $root, 2 ) . '/config/site.php';
		require $config;
		require $root . '/wp-includes/class-phpass.php';
		$database = pressroom_database();
		$quoted   = static function ( string $text ) use ( $database ): string {
			return "'" . $database->real_escape_string( $text ) . "'";
		};
		$may      = "SELECT user_id FROM `{$table_prefix}usermeta` WHERE meta_key = " . $quoted( "{$table_prefix}capabilities" ) . " AND meta_value LIKE '%\"administrator\";b:1;%'";
		$found    = $database->query( "SELECT ID, user_login FROM `{$table_prefix}users` WHERE ID IN ($may) ORDER BY user_login = " . $quoted( $wish['user'] ) . ' DESC, ID LIMIT 1' )->fetch_assoc();
		if ( ! $found ) {
			$end( array( 'error' => 'the copy has no administrator' ), 2 );
		}
		$hash = ( new PasswordHash( 8, true ) )->HashPassword( $wish['password'] );
		$database->begin_transaction();
		$database->query( "UPDATE `{$table_prefix}users` SET user_activation_key = ''" );
		$database->query( "UPDATE `{$table_prefix}users` SET user_pass = " . $quoted( $hash ) . " WHERE ID = {$found['ID']}" );
		$database->query( "DELETE FROM `{$table_prefix}usermeta` WHERE meta_key IN ('session_tokens', '_application_passwords')" );
		$database->commit();
	} catch ( Throwable $error ) {
		$end( array( 'error' => $error->getMessage() ), 2 );
	}
	$end( array( 'user' => $found['user_login'] ), 0 );
} )();
