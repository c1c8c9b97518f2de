<?php
/** Sessions: nothing lost, nothing overwritten, nobody waits for ever. @package Pressroom @license GPL-2.0-or-later */

$visit = static function ( string $do, string $id = '', string $more = '' ): array {
	$page   = Lab::request(
		"/session-page.php?do=$do$more",
		array(
			'script' => '/session-page.php',
			'params' => array( 'HTTP_COOKIE' => '' === $id ? null : "PHPSESSID=$id" ),
		)
	);
	$answer = json_decode( $page['body'], true );
	return ( is_array( $answer ) ? $answer : array( 'body' => $page['body'] ) ) + array( 'status' => $page['status'], 'took' => $page['seconds'] );
};
$redis = Lab::sessions();
$key   = static function ( string $id ): string {
	return "blog:session:$id";
};
$log   = static function (): string {
	return (string) file_get_contents( getenv( 'LAB' ) . '/php.log' );
};
$redis->flushAll();
$redis->rawCommand( 'ACL', 'LOG', 'RESET' );

// The ordinary life of a session.
$new = $visit( 'add' );
Lab::same( 'a session is ours where WordPress is loaded', array( true, 'user', true ), array( $new['started'], $new['handler'], $new['saved'] ?? null ) );
Lab::same( 'no password is left for PHP to print', '', $new['path'] );
$id = $new['id'];
Lab::same( 'it has the key that ext-redis gave it', 'n|i:1;', $redis->get( $key( $id ) ) );
Lab::same( 'its lock is gone with the request', 0, $redis->exists( $key( $id ) . '_LOCK' ) );
Lab::same( 'the next request has its data', array( array( 'n' => 1 ), $id ), array( $visit( 'add', $id )['data'], $id ) );
$redis->setex( $key( 'from-before-the-upgrade' ), 600, 'cart|s:6:"apples";' );
Lab::same( 'a session of ext-redis is taken over', array( 'cart' => 'apples' ), $visit( '', 'from-before-the-upgrade' )['data'] );
Lab::same( 'and back, where WordPress is not loaded', array( array( 'n' => 2 ), 'redis' ), array_values( array_intersect_key( $visit( '', $id, '&native=1' ), array( 'handler' => 1, 'data' => 1 ) ) ) );
$native = $visit( 'add', '', '&native=1' );
Lab::same( 'which makes, changes and destroys sessions without a script', array( array( 'n' => 1 ), true, true ), array( $visit( 'add', $native['id'], '&native=1' )['data'], $visit( 'destroy', $native['id'], '&native=1' )['done'], 0 === $redis->exists( $key( $native['id'] ) ) ) );
Lab::claim( 'an id that nobody was given is not accepted', 'nobody-gave-this' !== $visit( '', 'nobody-gave-this' )['id'] );
$redis->set( $key( 'mine' ) . '_LOCK', 'a lock' );
Lab::claim( 'nor is the name of a lock', 'mine_LOCK' !== $visit( '', 'mine_LOCK' )['id'] );
$empty = $visit( '' );
Lab::same( 'an empty session keeps its id', $empty['id'], $visit( '', $empty['id'] )['id'] );

// Unchanged data.
$redis->expire( $key( $id ), 100 );
$before = $redis->rawCommand( 'INFO', 'commandstats' );
Lab::same( 'unchanged data stay', array( 'n' => 2 ), $visit( '', $id )['data'] );
$sets = static function ( $info ): int {
	return preg_match( '/cmdstat_setex:calls=(\d+)/', $info, $match ) ? (int) $match[1] : 0;
};
Lab::same( 'and are not written again', $sets( $before ), $sets( $redis->rawCommand( 'INFO', 'commandstats' ) ) );
Lab::same( 'but live on', array( 'n|i:2;', true ), array( $redis->get( $key( $id ) ), $redis->ttl( $key( $id ) ) > 1000 ) );
$read = $visit( 'read-and-close', $id );
Lab::same( 'read_and_close reads, and has no lock afterwards', array( true, array( 'n' => 2 ), 0 ), array( $read['started'], $read['data'], $redis->exists( $key( $id ) . '_LOCK' ) ) );

// Other ends.
foreach ( array( 'exit', 'fatal', 'memory' ) as $end ) {
	$visit( $end, $id );
	Lab::same( "after `$end` the session is saved and unlocked", array( 'n|s:' . strlen( $end ) . ":\"$end\";", 0 ), array( $redis->get( $key( $id ) ), $redis->exists( $key( $id ) . '_LOCK' ) ) );
}
$visit( 'at-the-end', $id );
Lab::same( 'what a shutdown function puts in is saved', array( 'n' => 'at the end' ), $visit( '', $id )['data'] );
Lab::same( 'it may be opened twice', array( true, array( 'n' => 'first, second' ) ), array( $visit( 'twice', $id )['again'], $visit( '', $id )['data'] ) );
$renewed = $visit( 'regenerate', $id );
Lab::same( 'a new id takes the data along', array( true, 0, array( 'n' => 'first, second' ) ), array( $renewed['done'], $redis->exists( $key( $id ) ), $visit( '', $renewed['new'] )['data'] ) );
Lab::same( 'who logs out is logged out', array( true, 0 ), array( $visit( 'destroy', $renewed['new'] )['done'], $redis->exists( $key( $renewed['new'] ) ) ) );
Lab::same( 'no lock is left of all this', array(), $redis->keys( 'blog:session:[^m]*_LOCK' ) );

// Two at a time.
$id      = $visit( '' )['id'];
$visitor = 'require ' . var_export( __DIR__ . '/lab.php', true ) . '; for ($i = 0; $i < 50; ++$i) { Lab::request("/session-page.php?do=add", array("script" => "/session-page.php", "params" => array("HTTP_COOKIE" => "PHPSESSID=' . $id . '"))); }';
$both    = array( Lab::process( $visitor ), Lab::process( $visitor ) );
array_map( array( 'Lab', 'finish' ), $both );
Lab::same( 'two visitors at a time lose no change', 'n|i:100;', $redis->get( $key( $id ) ) );

// The lock is lost.
foreach ( array( 'steal' => 'who|s:5:"newer";', 'lose' => 'n|i:100;' ) as $do => $kept ) {
	$redis->del( $key( $id ) . '_LOCK' );
	$redis->setex( $key( $id ), 600, 'n|i:100;' );
	$late = $visit( $do, $id );
	Lab::same( "who lost the lock writes nothing ($do)", array( $kept, true ), array( $redis->get( $key( $id ) ), false !== strpos( implode( ' ', $late['said'] ), 'Failed to write session data' ) ) );
}
Lab::claim( 'and the log says why', false !== strpos( $log(), 'its lock was lost' ) );
$redis->set( $key( $id ) . '_LOCK', 'another' );
$redis->pExpire( $key( $id ) . '_LOCK', 20000 );
$waited = $visit( '', $id );
Lab::same( 'who does not get the lock gets no data, and keeps the id', array( false, true, 'another' ), array( $waited['started'], empty( $waited['data'] ), $redis->get( $key( $id ) . '_LOCK' ) ) );
Lab::claim( sprintf( 'and waits no longer than the time limit (%.1f s)', $waited['took'] ), $waited['took'] >= 2 && $waited['took'] < 4 );
Lab::same( 'a page is no error for it', 200, $waited['status'] );

// A worker is killed.
$redis->del( $key( $id ) . '_LOCK' );
$redis->setex( $key( $id ), 600, 'n|i:7;' );
$visit( 'die', $id );
$left = $redis->pttl( $key( $id ) . '_LOCK' );
Lab::claim( "the lock of a killed worker expires ($left ms)", $left > 0 && $left <= 8000 );
Lab::claim( 'then the session is there again, as it was', Lab::until( static function () use ( $visit, $id ) {
	return array( 'n' => 7 ) === ( $visit( '', $id )['data'] ?? null );
}, 15 ) );

// Redis is away.
Lab::same( 'broken connections are made anew', array( true, 'n|s:17:"after the restart";' ), array( $visit( 'restart', $id )['saved'], Lab::sessions()->get( $key( $id ) ) ) );
$redis = Lab::sessions();
$redis->setex( $key( $id ), 600, 'n|i:7;' );
$frozen = $visit( 'freeze', $id );
Lab::claim( sprintf( 'Redis frozen in mid-request costs about a second (%.1f s)', $frozen['took'] ), 200 === $frozen['status'] && $frozen['took'] < 2.5 && ! empty( $frozen['said'] ), $frozen );
foreach ( array( $id, '' ) as $who ) {
	$frozen = $visit( 'regenerate', $who );
	Lab::claim( sprintf( 'Redis frozen before: session_start() is false, within %.1f s', $frozen['took'] ), 200 === $frozen['status'] && false === ( $frozen['started'] ?? null ) && $frozen['took'] < 1.6, $frozen );
}
posix_kill( (int) getenv( 'LAB_SESSIONS_PID' ), SIGCONT );
Lab::same( 'and nothing is lost when it goes on', array( 'n' => 7 ), ( Lab::until( static function () use ( $redis, $key, $id ) {
	return ! $redis->exists( $key( $id ) . '_LOCK' );
}, 10 ) ? $visit( '', $id )['data'] : 'locked' ) );
Lab::claim( 'the log names the reason, and no password', false !== strpos( $log(), 'Redis does not answer' ) && false === strpos( $log(), 'sessions-secret' ) );

// Memory is full: nothing new is kept, and it is said.
$redis->set( 'other:fill', str_repeat( 'x', 3 << 20 ) );
$redis->config( 'SET', 'maxmemory', '3mb' );
$full = $visit( 'add', $id );
Lab::same( 'a full server: session_start() is false, no error page', array( 200, false ), array( $full['status'], $full['started'] ?? null ) );
Lab::claim( 'and the log says that memory is short', false !== strpos( $log(), 'memory for sessions is short' ) );
$redis->del( 'other:fill' );
$redis->config( 'SET', 'maxmemory', '64mb' );
Lab::same( 'afterwards it goes on', array( 'n' => 7 ), $visit( 'add', $id )['data'] );

// All of that with the commands of README.md.
$denied = array();
foreach ( $redis->rawCommand( 'ACL', 'LOG' ) as $entry ) {
	for ( $i = 0; $i < count( $entry ); $i += 2 ) {
		if ( 'object' === $entry[ $i ] ) {
			$denied[] = $entry[ $i + 1 ];
		}
	}
}
Lab::same( 'nothing was denied', array(), $denied );
