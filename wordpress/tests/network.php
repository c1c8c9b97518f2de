<?php
/** A network of sites (multisite). Last, because it changes the installation. @package Pressroom @license GPL-2.0-or-later */

Lab::wp( 'define("WP_INSTALLING_NETWORK",true);require ABSPATH."wp-admin/includes/upgrade.php";require ABSPATH."wp-admin/includes/network.php";foreach($wpdb->tables("ms_global") as $t=>$p){$wpdb->$t=$p;}install_network();populate_network(1,"lab.test","a@lab.test","Net","/",false);' );
file_put_contents( dirname( getenv( 'PRESSROOM_CONFIG' ) ) . '/network.php', "<?php define('WP_ALLOW_MULTISITE',true);define('MULTISITE',true);define('SUBDOMAIN_INSTALL',false);define('DOMAIN_CURRENT_SITE','lab.test');define('PATH_CURRENT_SITE','/');define('SITE_ID_CURRENT_SITE',1);define('BLOG_ID_CURRENT_SITE',1);" );
$blog = (int) Lab::wp( 'echo wpmu_create_blog("lab.test","/second/","Second",1,["public"=>1],1);' );
Lab::same( 'a second blog is made', 2, $blog );
Lab::wp( 'switch_to_blog(2);switch_theme("lab");update_option("permalink_structure","/%postname%/");restore_current_blog();' );

// Keys are apart, global groups are shared.
$out = Lab::wp( 'wp_cache_set("k","one","plug");switch_to_blog(2);echo var_export(wp_cache_get("k","plug"),true);wp_cache_set("k","two","plug");wp_cache_set("g","shared","site-options");restore_current_blog();echo wp_cache_get("k","plug"),wp_cache_get("g","site-options");' );
Lab::same( 'blogs have their own keys and share global groups', 'falseoneshared', $out );
Lab::same( 'in another request, too', 'onetwoshared', Lab::wp( 'echo wp_cache_get("k","plug");switch_to_blog(2);echo wp_cache_get("k","plug"),wp_cache_get("g","site-options");' ) );

// Tags and purges are of one blog.
$post = (int) Lab::wp( 'switch_to_blog(2);echo wp_insert_post(["post_title"=>"In two","post_status"=>"publish","post_author"=>1]);' );
Lab::listen();
Lab::wp( "switch_to_blog(2);update_post_meta($post,'x',microtime());" );
list( $tags, $all ) = Lab::purged();
Lab::claim( 'a change in the second blog purges its tags only', ! $all && in_array( "2:post-$post", $tags, true ) && in_array( '2:any', $tags, true ) && ! preg_grep( '/^1:/', $tags ), array( $all, $tags ) );
Lab::listen();
Lab::wp( 'switch_to_blog(2);update_option("blogname","Zwei");' );
list( $tags, $all ) = Lab::purged();
Lab::claim( 'an option of the second blog purges that blog', ! $all && in_array( '2:site', $tags, true ), array( $all, $tags ) );
Lab::listen();
Lab::wp( 'update_site_option("some_network_option",microtime());' );
Lab::claim( 'an option of the network purges everything', Lab::purged()[1], Lab::heard() );
$response = Lab::request( '/second/' );
$done     = Lab::done( $response );
Lab::claim( 'a page of the second blog has its tags', in_array( '2:site', $done['affirmation']['tags'] ?? array(), true ) && in_array( "2:post-$post", $done['affirmation']['tags'], true ), array( $done, $response['headers'] ) );
$response = Lab::request( '/' );
$done     = Lab::done( $response );
Lab::claim( 'and one of the first has its own', in_array( '1:site', $done['affirmation']['tags'] ?? array(), true ) && ! in_array( '2:site', $done['affirmation']['tags'], true ), array( $done, $response['headers'] ) );
for ( $i = 0; $i < 3; ++$i ) {
	Lab::done( Lab::request( '/second/' ) );
}
Lab::claim( 'a page of a network takes few round trips, too', Lab::cost()['trips'] <= 4, Lab::cost() );

// Cron visits every blog.
Lab::script( 'cron.php', array( '--run' ) );
Lab::wp( 'foreach([1,2] as $b){switch_to_blog($b);wp_schedule_single_event(time()-5,"lab_network");}' );
$due = Lab::script( 'cron.php', array( '--due' ) );
Lab::same( 'events of all blogs are due', 2, $due['said']['due'] ?? $due );
$ran = Lab::script( 'cron.php', array( '--run' ) );
Lab::same( 'and run', array( 2, 0 ), array( $ran['said']['ran'] ?? $ran, $ran['said']['due'] ?? null ) );
