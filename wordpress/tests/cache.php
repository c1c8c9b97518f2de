<?php
/** The object cache's API and meaning. @package Pressroom @license GPL-2.0-or-later */

$_SERVER['HTTP_HOST']   = 'lab.test';
$_SERVER['HTTPS']       = 'on';
$_SERVER['REQUEST_URI'] = '/';
require_once getenv( 'LAB_ROOT' ) . '/wp-load.php';

// A busy machine must not look like a frozen Redis to these tests; outage.php sets it back.
Pressroom_Cache_Redis::$read_timeout    = 2.0;
Pressroom_Cache_Redis::$connect_timeout = 2.0;

/** Another process, as far as the cache is concerned. */
function other(): WP_Object_Cache {
	$other = new WP_Object_Cache();
	$other->add_global_groups( array( 'users', 'site-options', 'site-transient' ) );
	$other->add_non_persistent_groups( array( 'counts', 'plugins' ) );
	return $other;
}

Lab::same( 'all features are supported', array( true, true, true, true, true, true, false ), array_map( 'wp_cache_supports', array( 'add_multiple', 'set_multiple', 'get_multiple', 'delete_multiple', 'flush_runtime', 'flush_group', 'nonsense' ) ) );
Lab::same( 'transients live in the cache', true, wp_using_ext_object_cache() );

// Values come back as they were, in the same request and in another, whatever they are.
$values = array( 'string' => 'x', 'empty' => '', 'int' => 5, 'negative' => -7, 'zero' => 0, 'digits' => '12', 'float' => 1.5, 'true' => true, 'false' => false, 'null' => null, 'array' => array( 1, 'a' => array( false ) ), 'T' => 'T123' );
foreach ( $values as $key => $value ) {
	foreach ( array( 'plug', 'posts' ) as $group ) {
		$one = other();
		$one->set( $key, $value, $group );
		$found = null;
		Lab::same( "$key in $group comes back", array( $value, true ), array( $one->get( $key, $group, false, $found ), $found ) );
		$one->close();
		Lab::same( "$key in $group comes back in another request", array( $value, true ), array( other()->get( $key, $group, false, $found ), $found ) );
	}
}
$found = null;
Lab::same( 'what is not there is false and not found', array( false, false ), array( other()->get( 'nothing', 'plug', false, $found ), $found ) );

// Objects are copies.
$object    = new stdClass();
$object->a = 1;
wp_cache_set( 'object', $object, 'plug' );
$object->a = 2;
Lab::same( 'an object is copied when stored', 1, wp_cache_get( 'object', 'plug' )->a );
wp_cache_get( 'object', 'plug' )->a = 3;
Lab::same( 'an object is copied when read', 1, wp_cache_get( 'object', 'plug' )->a );
Lab::same( 'an object comes back in another request', 1, other()->get( 'object', 'plug' )->a );

// add, replace, delete.
$one = other();
Lab::same( 'add adds', true, $one->add( 'added', 1, 'plug' ) );
Lab::same( 'add does not add twice', false, $one->add( 'added', 2, 'plug' ) );
Lab::same( 'nor in another request', false, other()->add( 'added', 2, 'plug' ) );
Lab::same( 'and the value stays', 1, other()->get( 'added', 'plug' ) );
Lab::same( 'delete says what was there', array( true, false ), array( $one->delete( 'added', 'plug' ), $one->delete( 'added', 'plug' ) ) );
Lab::same( 'after delete it is gone everywhere', array( false, false ), array( $one->get( 'added', 'plug' ), other()->get( 'added', 'plug' ) ) );
Lab::same( 'after delete it can be added', array( true, 3 ), array( other()->add( 'added', 3, 'plug' ), other()->get( 'added', 'plug' ) ) );
Lab::same( 'delete from another request says so, too', true, other()->delete( 'added', 'plug' ) );
Lab::same( 'replace replaces only what is there', array( false, true, 9 ), array( other()->replace( 'replaced', 1, 'plug' ), other()->set( 'replaced', 1, 'plug' ) && other()->replace( 'replaced', 9, 'plug' ), other()->get( 'replaced', 'plug' ) ) );
wp_suspend_cache_addition( true );
Lab::same( 'add adds nothing while additions are suspended', array( false, array( 'b' => false ) ), array( wp_cache_add( 'suspended', 1 ), wp_cache_add_multiple( array( 'b' => 1 ) ) ) );
wp_suspend_cache_addition( false );

// Force sees what another request did.
$one = other();
$one->set( 'forced', 1, 'plug' );
other()->set( 'forced', 2, 'plug' );
Lab::same( 'without force the own copy counts, with force the stored one', array( 1, 2, 2 ), array( $one->get( 'forced', 'plug' ), $one->get( 'forced', 'plug', true ), $one->get( 'forced', 'plug' ) ) );
other()->delete( 'forced', 'plug' );
Lab::same( 'with force a deleted value is gone', false, $one->get( 'forced', 'plug', true ) );

// Several at once.
$one = other();
Lab::same( 'set_multiple', array( 'a' => true, 'b' => true ), $one->set_multiple( array( 'a' => 1, 'b' => 2 ), 'many' ) );
Lab::same( 'add_multiple', array( 'b' => false, 'c' => true ), other()->add_multiple( array( 'b' => 9, 'c' => 3 ), 'many' ) );
Lab::same( 'get_multiple keeps order and says false', array( 'c' => 3, 'x' => false, 'a' => 1, 'b' => 2 ), other()->get_multiple( array( 'c', 'x', 'a', 'b' ), 'many' ) );
$two = other();
$two->get( 'a', 'many' );
$trips = $two->round_trips();
$two->get_multiple( array( 'a', 'b', 'c', 'd', 'e' ), 'many' );
Lab::same( 'get_multiple is one round trip', 1, $two->round_trips() - $trips );
Lab::same( 'delete_multiple', array( 'a' => true, 'x' => false ), other()->delete_multiple( array( 'a', 'x' ), 'many' ) );
Lab::same( 'integer keys work in get_multiple', array( 5 => 'five', 6 => false ), ( $one->set( 5, 'five', 'many' ) ? other() : $one )->get_multiple( array( 5, 6 ), 'many' ) );
$one = other();
$one->add_multiple( array( 901 => 'x', 902 => 'y' ), 'posts' );
$one->close();
Lab::same( 'what was never deleted can be filled by add_multiple', array( 901 => 'x', 902 => 'y' ), other()->get_multiple( array( 901, 902 ), 'posts' ) );

// Numbers.
wp_cache_set( 'n', 5, 'plug' );
Lab::same( 'incr and decr', array( 8, 6, 0 ), array( wp_cache_incr( 'n', 3, 'plug' ), wp_cache_decr( 'n', 2, 'plug' ), wp_cache_decr( 'n', 99, 'plug' ) ) );
Lab::same( 'the number is stored', 0, other()->get( 'n', 'plug' ) );
Lab::same( 'what is not there cannot be counted', array( false, false ), array( wp_cache_incr( 'none', 1, 'plug' ), wp_cache_decr( 'none', 1, 'plug' ) ) );
wp_cache_set( 'text', 'abc', 'plug' );
Lab::same( 'what is no number counts from zero', 2, wp_cache_incr( 'text', 2, 'plug' ) );

wp_cache_set( 'many', 0, 'plug' );
$children = array();
for ( $i = 0; $i < 4; ++$i ) {
	// On a machine that is busy elsewhere Redis may be late; that process then goes on without it, and says how far it came.
	$children[] = Lab::start( 'for ($i = 0; $i < 250 && $GLOBALS["wp_object_cache"]->is_up(); $i++) { wp_cache_incr("many", 1, "plug"); } echo $i, " ", (int) $GLOBALS["wp_object_cache"]->is_up();' );
}
$counted = 0;
$unsure  = 0;
foreach ( $children as $child ) {
	list( $count, $is_up ) = explode( ' ', Lab::finish( $child ) );
	$counted += (int) $count;
	$unsure  += $is_up ? 0 : 1;
}
$many = other()->get( 'many', 'plug' );
Lab::same( 'no count of four processes is lost', true, $counted > 0 && $many <= $counted && $many >= $counted - $unsure );

// Keys.
add_filter( 'doing_it_wrong_trigger_error', '__return_false' );
$wrong = 0;
add_action( 'doing_it_wrong_run', static function () use ( &$wrong ) {
	++$wrong;
} );
Lab::same( 'impossible keys are refused', array( false, false, false, false, false, false ), array( wp_cache_set( '', 1 ), wp_cache_get( ' ' ), wp_cache_add( null, 1 ), wp_cache_delete( false ), wp_cache_incr( 1.5 ), wp_cache_replace( array(), 1 ) ) );
Lab::same( 'and complained about', 6, $wrong );
Lab::same( 'zero is a key', true, wp_cache_set( 0, 'zero', 'plug' ) && 'zero' === other()->get( 0, 'plug' ) );

// Expiry.
other()->set( 'short', 1, 'plug', 1 );
$admin = Lab::admin();
Lab::same( 'a value is there until its time', 1, other()->get( 'short', 'plug' ) );
usleep( 1100000 );
Lab::same( 'and not after it', false, other()->get( 'short', 'plug' ) );
Lab::same( 'nothing is stored for ever', array(), array_values( array_filter( $admin->keys( 'blog:*' ), static function ( $key ) use ( $admin ) {
	return $admin->ttl( $key ) < 0 && 'blog:generation' !== $key;
} ) ) );

// Groups.
$one = other();
$one->set( 'local', 1, 'counts' );
Lab::same( 'a non-persistent group stays here', array( 1, false ), array( $one->get( 'local', 'counts' ), other()->get( 'local', 'counts' ) ) );
other()->set( 'k', 1, 'flushed' );
other()->set( 'k', 1, 'kept' );
$old = other();
$old->get( 'k', 'kept' );
Lab::same( 'flush_group', true, other()->flush_group( 'flushed' ) );
Lab::same( 'flushes this group only', array( false, 1 ), array( other()->get( 'k', 'flushed' ), other()->get( 'k', 'kept' ) ) );
Lab::same( 'also for a request that began before', false, $old->get( 'k', 'flushed' ) );
other()->set( 'k', 2, 'flushed' );
Lab::same( 'a flushed group can be used', 2, other()->get( 'k', 'flushed' ) );
$old = other();
$old->get( 'whatever', 'kept' );
Lab::same( 'flush', true, other()->flush() );
Lab::same( 'flushes everything', array( false, false ), array( other()->get( 'k', 'kept' ), $old->get( 'k', 'flushed' ) ) );
other()->set( 'k', 'new', 'kept' );
$old->delete( 'k', 'kept' );
Lab::same( 'a request of an old generation deletes in the new one', false, other()->get( 'k', 'kept' ) );
$old = other();
$old->get( 'fill', 'posts' );
other()->flush();
$old->set( 'fill', 'old', 'posts' );
$old->close();
Lab::same( 'a request of an old generation fills nothing', false, other()->get( 'fill', 'posts' ) );
$one = other();
$one->set( 'runtime', 1, 'plug' );
$one->flush_runtime();
Lab::same( 'flush_runtime forgets only here', 1, $one->get( 'runtime', 'plug' ) );
$admin->del( 'blog:generation' );
Lab::same( 'a lost generation brings nothing back', array( false, false ), array( other()->get( 'runtime', 'plug' ), other()->get( 'k', 'kept' ) ) );

// Serialising what cannot be.
Lab::same( 'what cannot be serialised stays here', array( true, true, false ), array( wp_cache_set( 'closure', static function () {}, 'plug' ), is_object( wp_cache_get( 'closure', 'plug' ) ), other()->get( 'closure', 'plug' ) ) );

// The rules of object-cache.php, one by one.
$reader = other();
$reader->get( 'r1', 'posts' );
other()->delete( 'r1', 'posts' );
$reader->set( 'r1', 'old', 'posts' );
$reader->close();
Lab::same( 'rule 1: what was deleted meanwhile is not filled, though nothing was there', false, other()->get( 'r1', 'posts' ) );
$reader = other();
$reader->get( 'r2', 'posts' );
$faster = other();
$faster->get( 'r2', 'posts' );
$faster->add( 'r2', 'new', 'posts' );
$faster->close();
$reader->add( 'r2', 'old', 'posts' );
$reader->close();
Lab::same( 'rule 2: the first fill stays', 'new', other()->get( 'r2', 'posts' ) );
other()->delete( 'r2b', 'posts' );
$reader = other();
$reader->add( 'r2b', 'read before looking', 'posts' );
$reader->add_multiple( array( 'r2b' => 'read before looking' ), 'posts' );
$reader->close();
Lab::same( 'rule 2: what was not looked for before it was read is not filled over a tombstone', false, other()->get( 'r2b', 'posts' ) );
$reader = other();
$reader->get( 'r2b', 'posts' );
$reader->add( 'r2b', 'read after looking', 'posts' );
$reader->close();
Lab::same( 'but what was looked for is', 'read after looking', other()->get( 'r2b', 'posts' ) );
other()->delete( 'r2c', 'posts' );
$reader = other();
$reader->set( 'r2c', 'read before looking', 'posts' );
$reader->set( 'r2c', 'still old', 'posts' );
$reader->close();
Lab::same( 'rule 2: nor at the second try', false, other()->get( 'r2c', 'posts' ) );
$writer = other();
$writer->get( 'r3', 'posts' );
$writer->before_query( 'UPDATE wp_posts SET x = 1' );
$writer->set( 'r3', 'written', 'posts' );
Lab::same( 'rule 3: a writer keeps its value', 'written', $writer->get( 'r3', 'posts' ) );
$writer->close();
Lab::same( 'rule 3: and stores none', false, other()->get( 'r3', 'posts' ) );
$writer = other();
$writer->before_query( 'UPDATE wp_posts SET x = 1' );
$writer->get( 'r3b', 'posts' );
$writer->set( 'r3b', 'read after its write', 'posts' );
$writer->close();
Lab::same( 'rule 3: what it read after its last write it may fill', 'read after its write', other()->get( 'r3b', 'posts' ) );
$writer = other();
$writer->before_query( 'START TRANSACTION' );
$writer->before_query( 'UPDATE wp_posts SET x = 1' );
$writer->delete( 'r4', 'posts' );
$reader = other();
$reader->get( 'r4', 'posts' );
$reader->add( 'r4', 'not yet committed', 'posts' );
$reader->close();
Lab::same( 'rule 4: somebody fills before the commit', 'not yet committed', other()->get( 'r4', 'posts' ) );
$writer->get( 'r4b', 'posts' );
$writer->set( 'r4b', 'uncommitted', 'posts' );
$writer->before_query( 'COMMIT' );
$writer->before_query( 'SELECT 1' );
Lab::same( 'rule 4: the commit invalidates again', false, other()->get( 'r4', 'posts' ) );
$writer->close();
Lab::same( 'rule 4: nothing is filled inside a transaction', false, other()->get( 'r4b', 'posts' ) );
$one = other();
$one->get( 'last_changed', 'posts' );
$one->set( 'last_changed', 'first', 'posts' );
other()->set( 'last_changed', 'second', 'posts' );
$one->close();
Lab::same( 'a stamp set by a writer is not overwritten by a reader', 'second', other()->get( 'last_changed', 'posts' ) );

// A site's user may not leave its prefix.
foreach ( array( array( 'get', 'other:x' ), array( 'keys', '*' ), array( 'flushAll' ), array( 'scan', '0' ), array( 'eval', 'return 1', '0' ), array( 'config', 'get', '*' ) ) as $command ) {
	$site = new Redis();
	$site->connect( PRESSROOM_REDIS_SOCKET );
	$site->auth( array( PRESSROOM_REDIS_USER, PRESSROOM_REDIS_PASSWORD ) );
	try {
		$site->rawCommand( ...$command );
		$refused = (bool) $site->getLastError();
	} catch ( RedisException $error ) {
		$refused = false !== strpos( $error->getMessage(), 'NOPERM' );
	}
	Lab::claim( "$command[0] is refused", $refused );
}
wp_cache_flush();
