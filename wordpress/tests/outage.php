<?php
/** Redis gone, frozen, late. @package Pressroom @license GPL-2.0-or-later */

require_once __DIR__ . '/cache.php';
ini_set( 'error_log', getenv( 'LAB' ) . '/expected.log' );
Pressroom_Cache_Redis::$read_timeout    = 0.04;
Pressroom_Cache_Redis::$connect_timeout = 0.02;
$timed = static function ( callable $do ): float {
	$began = microtime( true );
	$do();
	return ( microtime( true ) - $began ) * 1000;
};

// Frozen before the request.
other()->set( 'o', 'before', 'plug' );
other()->set( 'p', 'before', 'plug' );
Lab::redis( 'freeze' );
$one = other();
$ms  = $timed( static function () use ( $one ) {
	for ( $i = 0; $i < 50; ++$i ) {
		$one->get( "key$i", 'plug' );
		$one->set( "key$i", 1, 'plug' );
		$one->delete( "key$i", 'posts' );
	}
	$one->get_multiple( array( 'a', 'b' ), 'plug' );
	$one->incr( 'key1', 1, 'plug' );
	$one->add( 'lock', 1, 'plug' );
	$one->flush_group( 'other' );
	$one->close();
} );
Lab::claim( sprintf( 'a frozen Redis costs a request at most 50 ms (%.1f)', $ms ), $ms <= 55 );
Lab::same( 'and the request has its own values', 2, $one->get( 'key1', 'plug' ) );
$page = Lab::request( '/' );
Lab::claim( sprintf( 'a page comes while Redis is frozen (%.0f ms)', $page['seconds'] * 1000 ), 200 === $page['status'] && false !== strpos( $page['body'], 'Hello world' ), $page['headers'] );
Lab::redis( 'thaw' );

// Frozen in the middle: the late answers belong to nobody.
$late = other();
$late->get( 'o', 'plug' );
Lab::redis( 'freeze' );
$late->get( 'p', 'plug' );
Lab::redis( 'thaw' );
Lab::same( 'after a failure the request asks no more', false, $late->get( 'o2', 'plug' ) );
$wrong = 0;
for ( $i = 0; $i < 20; ++$i ) {
	$next = other();
	if ( 'before' !== $next->get( 'o', 'plug' ) && false !== $next->get( 'o', 'plug' ) || ! $next->is_up() ) {
		++$wrong;
	}
	unset( $next );
}
Lab::same( 'the next requests get right answers, and Redis is back by itself', 0, $wrong );

// A pooled connection with an unread answer in it (its process died between question and answer).
$poisoned = new Redis();
$poisoned->pconnect( PRESSROOM_REDIS_SOCKET, 0, 0.1, 'pressroom ' . PRESSROOM_REDIS_PREFIX, 0, 0.1 );
$poisoned->auth( array( PRESSROOM_REDIS_USER, PRESSROOM_REDIS_PASSWORD ) );
$poisoned->set( 'blog:poison', 'poison' );
Lab::redis( 'freeze' );
$poisoned->setOption( Redis::OPT_READ_TIMEOUT, 0.001 );
$pipe = $poisoned->pipeline();
$pipe->get( 'blog:poison' );
$stream_left = $poisoned;
unset( $pipe, $poisoned, $stream_left );
Lab::redis( 'thaw' );
other()->set( 'healthy', 'yes', 'plug' );
Lab::same( 'a poisoned connection is not believed', 'yes', other()->get( 'healthy', 'plug' ) );

// Redis restarted: its connections are closed.
Lab::admin()->rawCommand( 'CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes' );
$next = other();
Lab::same( 'closed connections are replaced within the request', array( 'yes', true ), array( $next->get( 'healthy', 'plug' ), $next->is_up() ) );

// What was invalidated while Redis was away does not come back.
other()->set( 'transient-like', 'stale', 'plug' );
$one = other();
$one->get( 'x', 'plug' );
Lab::redis( 'freeze' );
$one->delete( 'transient-like', 'plug' );
$one->close();
Lab::redis( 'thaw' );
Lab::same( 'what was deleted while Redis was frozen is gone when it is back', false, other()->get( 'transient-like', 'plug' ) );
Lab::same( 'the mark is gone, too', array(), glob( dirname( getenv( 'PRESSROOM_CONFIG' ), 2 ) . '/tmp/object-cache/[lc]*' ) );
Lab::same( 'what was not deleted stayed', 'yes', other()->get( 'healthy', 'plug' ) );
other()->set( 'stays', 'yes', 'plug' );
Lab::same( 'and then values stay', 'yes', other()->get( 'stays', 'plug' ) );

// A process killed between its commit and its delete.
$child = Lab::start( '$wpdb->query("UPDATE $wpdb->options SET option_value=\'killed\' WHERE option_name=\'blogdescription\'"); posix_kill(getmypid(), SIGKILL);' );
other()->set( 'seen-before-the-kill', 'stale', 'plug' );
Lab::finish( $child );
Lab::same( 'what a killed writer may have left stale is not met again', false, other()->get( 'seen-before-the-kill', 'plug' ) );
Lab::same( 'and the database is believed', 'killed', Lab::wp( 'echo get_option("blogdescription");' ) );

// Redis not there at all.
$ms  = 0;
$out = Lab::wp( '$t=microtime(true); wp_cache_set("a",1,"plug"); wp_cache_get("b","plug"); update_option("blogdescription","without redis"); echo get_option("blogdescription"),"|",wp_cache_get("a","plug"),"|",$GLOBALS["wp_object_cache"]->is_up()?"up":"down";', array( 'LAB_REDIS' => getenv( 'LAB' ) . '/nowhere.sock' ) );
Lab::same( 'without Redis everything works for the request', 'without redis|1|down', $out );
Lab::same( 'and nothing stale comes back', 'without redis', Lab::wp( 'echo get_option("blogdescription");' ) );
