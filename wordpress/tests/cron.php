<?php
/** Scheduled events. @package Pressroom @license GPL-2.0-or-later */

$events = getenv( 'LAB' ) . '/events';
file_put_contents( getenv( 'LAB_ROOT' ) . '/wp-content/mu-plugins/zz-events.php', '<?php
add_action( "lab_event", function ( $n ) { file_put_contents( ' . var_export( $events, true ) . ', "$n\n", FILE_APPEND ); usleep( 20000 ); } );
add_action( "lab_dies", function () { file_put_contents( ' . var_export( $events, true ) . ', "dies\n", FILE_APPEND ); lab_no_such_function(); } );
add_action( "lab_kills", function ( $n ) { file_put_contents( ' . var_export( $events, true ) . ', "kills$n\n", FILE_APPEND ); if ( is_file( ' . var_export( "$events.kill", true ) . ' ) ) posix_kill( getmypid(), 9 ); } );
add_action( "lab_prints", function () { echo str_repeat( "noise ", 99999 ); } );
' );
Lab::script( 'cron.php', array( '--run' ) );
$schedule = static function ( string $code ) use ( $events ): void {
	@unlink( $events );
	Lab::wp( $code );
};
$ran = static function () use ( $events ): array {
	$lines = array_filter( explode( "\n", (string) @file_get_contents( $events ) ), 'strlen' );
	sort( $lines );
	return $lines;
};

$schedule( 'for($i=10;$i<20;$i++) wp_schedule_single_event(time()-5,"lab_event",[$i]);wp_schedule_single_event(time()+50,"lab_event",[99]);wp_schedule_single_event(time()-5,"lab_prints");' );
$look = Lab::script( 'cron.php', array( '--due' ) );
Lab::same( 'what is due is counted', 11, $look['said']['due'] ?? $look );
Lab::same( 'and nothing runs', array(), $ran() );
$children = array();
for ( $i = 0; $i < 4; ++$i ) {
	$children[] = proc_open( array( getenv( 'LAB_PHP' ), getenv( 'LAB' ) . '/cron.php', getenv( 'LAB_ROOT' ), '--run' ), array( 1 => array( 'pipe', 'w' ) ), $pipes );
	$outputs[]  = $pipes[1];
}
$response = Lab::request( '/wp-cron.php', array( 'script' => '/wp-cron.php', 'params' => array( 'PRESSROOM_CANONICAL' => '' ) ) );
foreach ( $children as $i => $child ) {
	$said[] = json_decode( stream_get_contents( $outputs[ $i ] ), true );
	proc_close( $child );
}
Lab::until( static function () use ( $ran ) {
	return count( $ran() ) >= 10;
}, 2 );
Lab::same( 'four runs and wp-cron.php at once run each event once', array_map( 'strval', range( 10, 19 ) ), $ran() );
Lab::claim( 'each run prints its JSON, whatever events print', ! in_array( null, $said, true ), $said );
Lab::until( static function () {
	return '' === Lab::wp( 'echo get_transient("doing_cron");' );
}, 2 );
$look = Lab::script( 'cron.php', array( '--due' ) );
Lab::claim( 'the next event is known', abs( $look['said']['next'] - time() - 50 ) < 30 && 0 === $look['said']['due'], $look );

$schedule( 'wp_schedule_single_event(time()-9,"lab_dies");wp_schedule_single_event(time()-5,"lab_event",[1]);' );
Lab::script( 'cron.php', array( '--run' ) );
Lab::script( 'cron.php', array( '--run' ) );
Lab::same( 'an event that dies does not hold up the next', array( '1', 'dies' ), $ran() );

$schedule( 'wp_schedule_single_event(time()-5,"lab_event",[7]);' );
Lab::request( '/' );
usleep( 300000 );
Lab::same( 'a page view runs nothing', array(), $ran() );
$response = Lab::request( '/wp-cron.php', array( 'script' => '/wp-cron.php', 'params' => array( 'PRESSROOM_CANONICAL' => '' ) ) );
Lab::until( static function () use ( $ran ) {
	return array() !== $ran();
}, 3 );
Lab::same( 'wp-cron.php works when called', array( '7' ), $ran() );
Lab::same( 'Site Health has nothing to say about cron', 'good|0|0', Lab::wp( 'require_once ABSPATH."wp-admin/includes/class-wp-site-health.php";require_once ABSPATH."wp-admin/includes/admin.php";$h=WP_Site_Health::get_instance();$t=$h->get_test_scheduled_events();echo $t["status"],"|",(int)$h->has_missed_cron(),"|",(int)$h->has_late_cron();' ) );
Lab::same( 'nor about the object cache', 'good', Lab::wp( 'require_once ABSPATH."wp-admin/includes/class-wp-site-health.php";require_once ABSPATH."wp-admin/includes/admin.php";echo WP_Site_Health::get_instance()->get_test_persistent_object_cache()["status"];' ) );

// A runner that is killed inside an event.
touch( "$events.kill" );
$schedule( 'wp_schedule_single_event(time()-9,"lab_kills",[1]);wp_schedule_single_event(time()-5,"lab_event",[1]);' );
Lab::script( 'cron.php', array( '--run' ) );
Lab::same( 'it is over with its runner', array( 'kills1' ), $ran() );
unlink( "$events.kill" );
$said = Lab::script( 'cron.php', array( '--run' ) )['said'];
Lab::same( 'the event is run again', array( 'kills1', 'kills1' ), $ran() );
Lab::same( 'which is told at once', array( 'lab_kills', 0, 0, 1 ), array( $said['again'][0]['hook'], $said['ran'], count( $said['reported'] ), $said['due'] ) );
Lab::script( 'cron.php', array( '--run' ) );
Lab::same( 'and the next one once', array( '1', 'kills1', 'kills1' ), $ran() );
touch( "$events.kill" );
$schedule( 'wp_schedule_single_event(time()-9,"lab_kills",[2]);' );
Lab::script( 'cron.php', array( '--run' ) );
Lab::script( 'cron.php', array( '--run' ) );
$said = Lab::script( 'cron.php', array( '--run' ) )['said'];
Lab::same( 'one that kills its runner twice is not run a third time', array( 'kills2', 'kills2' ), $ran() );
Lab::same( 'but reported', array( 'lab_kills', 0 ), array( $said['reported'][0]['hook'], count( $said['again'] ) ) );
$schedule( 'wp_schedule_single_event(time()-9,"lab_kills",[3]);' );
Lab::script( 'cron.php', array( '--run' ) );
$said = Lab::script( 'cron.php', array( '--run', '--interrupted=report' ) )['said'];
Lab::same( 'with the other policy none is run again', array( array( 'kills3' ), 'lab_kills' ), array( $ran(), $said['reported'][0]['hook'] ) );
unlink( "$events.kill" );
$said = Lab::script( 'cron.php', array( '--run' ) )['said'];
Lab::same( 'nothing is told twice', array( array(), array() ), array( $said['again'], $said['reported'] ) );

// The schedule is one option, which many write.
require_once getenv( 'LAB_ROOT' ) . '/wp-load.php';
Lab::wp( 'wp_unschedule_hook("lab_event");wp_schedule_single_event(1999990000,"lab_event",["removed"]);wp_schedule_single_event(1999990000,"lab_event",["stays"]);' );
$scheduled = static function (): string {
	return Lab::wp( '$found=array();foreach(_get_cron_array() as $time=>$hooks)foreach($hooks as $hook=>$events)foreach($events as $event)if(0===strpos($hook,"lab_"))$found[]=$hook.($event["args"][0]??"");sort($found);echo implode(" ",$found);' );
};
Pressroom_Cron::read_again();
wp_next_scheduled( 'lab_event', array( 'stays' ) );
Lab::wp( 'wp_schedule_single_event(1999990000,"lab_event",["theirs"]);wp_schedule_event(1999990000,"daily","lab_daily");wp_schedule_single_event(1999990000,"lab_event",["both"]);' );
wp_schedule_single_event( 1999990001, 'lab_event', array( 'ours' ) );
wp_schedule_single_event( 1999990001, 'lab_event', array( 'both' ) );
wp_unschedule_event( 1999990000, 'lab_event', array( 'removed' ) );
Lab::same( 'a request that read the schedule earlier changes only what it means to', 'lab_daily lab_eventboth lab_eventours lab_eventstays lab_eventtheirs', $scheduled() );
Lab::wp( 'wp_clear_scheduled_hook("lab_daily");' );
Pressroom_Cron::read_again();
wp_next_scheduled( 'lab_daily' );
Lab::wp( 'wp_schedule_event(1999990000,"daily","lab_daily");' );
wp_schedule_event( 1999995000, 'daily', 'lab_daily' );
Lab::same( 'two that add the same recurring event at the same time add one', 1, substr_count( $scheduled(), 'lab_daily' ) );
Lab::wp( 'wp_unschedule_hook("lab_event");wp_unschedule_hook("lab_daily");' );
$children = array();
for ( $i = 0; $i < 6; ++$i ) {
	$code       = 'define("WP_USE_THEMES",false);require $argv[1]."/wp-load.php";for($n=0;$n<20;$n++)wp_schedule_single_event(1999990000+$n,"lab_event",[$argv[2]."-".$n]);';
	$children[] = proc_open( array( getenv( 'LAB_PHP' ), '-r', $code, '--', getenv( 'LAB_ROOT' ), (string) $i ), array(), $pipes );
}
array_map( 'proc_close', $children );
Lab::same( 'six that schedule at once forget nothing', 120, substr_count( $scheduled(), 'lab_event' ) );
Lab::same( 'and the earliest comes first', true, Lab::wp( '$times=array_keys(_get_cron_array());$sorted=$times;sort($sorted);echo (int)($times===$sorted);' ) === '1' );
Lab::wp( 'wp_unschedule_hook("lab_event");' );
unlink( getenv( 'LAB_ROOT' ) . '/wp-content/mu-plugins/zz-events.php' );
