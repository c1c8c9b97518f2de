<?php
/**
 * A page with a session in it: `?do=NAME`, answers in JSON what became of it. With `native` it never loads WordPress.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

if ( ! isset( $_GET['native'] ) ) {
	define( 'SHORTINIT', true );
	require __DIR__ . '/wp-load.php';
}
$do   = $_GET['do'] ?? '';
$said = array();
set_error_handler( static function ( int $level, string $words ) use ( &$said ): bool {
	$said[] = $words;
	return false;
} );
$lab = static function (): Redis {
	$redis = new Redis();
	$redis->connect( getenv( 'LAB_SESSIONS' ) );
	$redis->auth( array( 'lab', 'lab' ) );
	return $redis;
};
$began   = microtime( true );
$started = session_start( 'read-and-close' === $do ? array( 'read_and_close' => true ) : array() );
$answer  = array(
	'started' => $started,
	'id'      => session_id(),
	'data'    => $_SESSION ?? null,
	'handler' => ini_get( 'session.save_handler' ),
	'path'    => ini_get( 'session.save_path' ),
);
switch ( $do ) {
	case 'add':
		$_SESSION['n'] = ( $_SESSION['n'] ?? 0 ) + 1;
		break;
	case 'fill':
		$_SESSION['text'] = str_repeat( 'x', (int) $_GET['bytes'] );
		break;
	case 'steal': // What happens to a request that takes too long: its lock expires, and another one saves.
		$_SESSION['who'] = 'late';
		$lab()->multi()->set( "blog:session:{$answer['id']}_LOCK", 'another' )->set( "blog:session:{$answer['id']}", 'who|s:5:"newer";' )->exec();
		break;
	case 'lose': // The lock is gone, and nobody has it.
		$_SESSION['who'] = 'late';
		$lab()->del( "blog:session:{$answer['id']}_LOCK" );
		break;
	case 'die':
		$_SESSION['n'] = 'never saved';
		exec( 'kill -KILL ' . getmypid() );
		break;
	case 'exit':
		$_SESSION['n'] = 'exit';
		exit( json_encode( $answer ) );
	case 'fatal':
		$_SESSION['n'] = 'fatal';
		pressroom_no_such_function();
		break;
	case 'memory':
		$_SESSION['n'] = 'memory';
		$hog           = str_repeat( 'x', PHP_INT_MAX >> 1 );
		break;
	case 'at-the-end':
		register_shutdown_function( static function () {
			$_SESSION['n'] = 'at the end';
		} );
		break;
	case 'regenerate':
		$answer['done'] = session_regenerate_id( true );
		$answer['new']  = session_id();
		break;
	case 'twice':
		$_SESSION['n'] = 'first';
		session_write_close();
		$answer['again'] = session_start();
		$_SESSION['n']  .= ', second';
		break;
	case 'destroy':
		$answer['done'] = session_destroy();
		break;
	case 'restart': // Every connection is broken in mid-request.
		$_SESSION['n'] = 'after the restart';
		$lab()->rawCommand( 'CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes' );
		break;
	case 'freeze':
		$_SESSION['n'] = 'frozen';
		exec( 'kill -STOP ' . (int) getenv( 'LAB_SESSIONS_PID' ) );
		break;
}
if ( ! in_array( $do, array( 'at-the-end', 'destroy' ), true ) && PHP_SESSION_ACTIVE === session_status() && ! isset( $_GET['open'] ) ) {
	$answer['saved'] = session_write_close();
}
$answer['said']    = $said;
$answer['seconds'] = microtime( true ) - $began;
echo json_encode( $answer );
