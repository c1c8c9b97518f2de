<?php
/** A network of sites (multisite). Last, because it changes the installation. @package Pressroom @license GPL-2.0-or-later */

$settings    = dirname( getenv( 'PRESSROOM_CONFIG' ) ) . '/network.php';
$write   = static function ( string $authority ) use ( $settings ): void {
	file_put_contents( $settings, "<?php defined('MULTISITE')||define('MULTISITE',true);define('SUBDOMAIN_INSTALL',false);define('DOMAIN_CURRENT_SITE','$authority');define('PATH_CURRENT_SITE','/');define('SITE_ID_CURRENT_SITE',1);define('BLOG_ID_CURRENT_SITE',1);define('PRESSROOM_HOME','https://$authority');" );
};
$install = static function ( string $authority, array $more = array() ): array {
	$wish = $more + array( 'url' => "https://$authority", 'title' => 'Net', 'user' => 'admin', 'email' => 'a@lab.test', 'password' => 'p', 'network' => 'subdirectories', 'upload_limit' => 10 << 20 );
	return Lab::script( 'install.php', array(), json_encode( array_filter( $wish ) ) );
};

// A site becomes a network: its addresses stay, and a second run changes nothing.
Lab::wp( 'global $wp_rewrite;$wp_rewrite->set_permalink_structure("/%year%/%postname%/");' );
$write( 'lab.test' );
$result = $install( 'lab.test', array( 'network' => 'folders' ) );
Lab::same( 'an unknown kind of network is refused', 1, $result['status'] );
Lab::listen();
$result = $install( 'lab.test' );
Lab::same( 'a site becomes a network', 'made', $result['said']['network'] ?? $result );
Lab::claim( 'and all its pages are purged', Lab::purged()[1], Lab::heard() );
$state = json_decode( Lab::wp( 'echo json_encode([is_multisite(),is_super_admin(1),get_option("permalink_structure"),home_url(),get_site_option("fileupload_maxk"),get_network()->site_name]);' ), true );
Lab::same( 'with its permalinks, its administrator, its limit', array( true, true, '/%year%/%postname%/', 'https://lab.test', '10240', 'Net' ), $state );
Lab::same( 'a second time there is nothing to do', 'there', $install( 'lab.test' )['said']['network'] ?? null );
Lab::wp( 'global $wpdb;$wpdb->query("DELETE FROM $wpdb->blogs");' );
Lab::same( 'one that was half made is made anew', 'made', $install( 'lab.test' )['said']['network'] ?? null );
$result = $install( 'lab.test', array( 'network' => 'subdomains' ) );
Lab::claim( 'it does not become one of the other kind', 2 === $result['status'] && false !== strpos( $result['output'], 'cannot become' ), $result );
rename( $settings, "$settings.away" );
$result = $install( 'lab.test', array( 'network' => null ) );
Lab::claim( 'nor a single site', 2 === $result['status'] && false !== strpos( $result['output'], 'holds a network of subdirectories' ), $result );
rename( "$settings.away", $settings );

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
Lab::wp( 'switch_to_blog(2);wp_insert_post(["post_title"=>"Another","post_status"=>"publish","post_author"=>1]);' );
list( $tags, $all ) = Lab::purged();
Lab::claim( 'so does a new post, of which the network notes the time', ! $all && in_array( '2:list-post', $tags, true ) && ! preg_grep( '/^1:/', $tags ), array( $all, $tags ) );
Lab::listen();
Lab::wp( 'update_blog_status(2,"archived",1);update_blog_status(2,"archived",0);' );
Lab::claim( 'a blog that is put away purges everything', Lab::purged()[1], Lab::heard() );
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

// A network from before WordPress 3.5 has its files among the uploads, under their former addresses, too.
$places = 'foreach([1,2] as $b){switch_to_blog($b);$u=wp_get_upload_dir();echo str_replace(WP_CONTENT_DIR,"",$u["basedir"])," ",$u["baseurl"],"\n";restore_current_blog();}';
$usual  = Lab::wp( $places );
Lab::same( 'a network of today leads nobody there', 404, Lab::request( '/second/files/2026/a.jpg' )['status'] );
Lab::wp( 'update_site_option("ms_files_rewriting",1);switch_to_blog(2);update_option("upload_path","wp-content/blogs.dir/2/files");' );
Lab::same( 'where files have addresses of their own, only the main blog does', array( strtok( $usual, "\n" ), '/uploads/blogs.dir/2/files https://lab.test/second/wp-content/uploads/blogs.dir/2/files' ), explode( "\n", trim( Lab::wp( $places ) ) ) );
Lab::wp( 'switch_to_blog(2);update_option("upload_path","/home/old/htdocs/wp-content/blogs.dir/2/files");' );
$made = Lab::wp( 'switch_to_blog(2);$u=wp_upload_bits("old.pdf",null,"old");echo $u["error"]?:str_replace(ABSPATH,"",$u["file"]);' );
Lab::claim( 'an upload lies there', 0 === strpos( $made, 'wp-content/uploads/blogs.dir/2/files/' ) && 'old' === file_get_contents( getenv( 'LAB_ROOT' ) . "/$made" ), $made );
$response = Lab::request( '/second/files/2026/a%20b.jpg?w=1' );
$to       = 'https://lab.test/second/wp-content/uploads/blogs.dir/2/files/2026/a%20b.jpg?w=1';
Lab::claim( 'a former address leads to it', 301 === $response['status'] && false !== stripos( $response['headers'], "Location: $to\r\n" ), $response['headers'] );
Lab::same( 'the folder itself leads nowhere', 404, Lab::request( '/second/files/?w=1' )['status'] );
Lab::same( 'not so at the main blog', 404, Lab::request( '/files/2026/a.jpg' )['status'] );
for ( $i = 0; $i < 3; ++$i ) {
	Lab::done( Lab::request( '/second/' ) );
}
Lab::claim( 'pages of such a network take as few round trips', Lab::cost()['trips'] <= 4, Lab::cost() );
Lab::wp( 'update_site_option("ms_files_rewriting",0);switch_to_blog(2);update_option("upload_path","");' );
Lab::same( 'and it may be given up', $usual, Lab::wp( $places ) );

// Cron runs one blog at a time, with that blog's plugins.
mkdir( getenv( 'LAB_ROOT' ) . '/wp-content/plugins/only', 0755, true );
file_put_contents( getenv( 'LAB_ROOT' ) . '/wp-content/plugins/only/only.php', '<?php /* Plugin Name: Only */ add_action("lab_only",function(){update_option("lab_only_ran",get_current_blog_id().home_url("/"));});' );
Lab::wp( 'require ABSPATH."wp-admin/includes/plugin.php";switch_to_blog(2);activate_plugin("only/only.php");' );
$second = '--blog=https://lab.test/second/';
Lab::script( 'cron.php', array( '--run' ) );
Lab::script( 'cron.php', array( '--run', $second ) );
Lab::wp( 'wp_schedule_single_event(time()-5,"lab_network");switch_to_blog(2);wp_schedule_single_event(time()-5,"lab_only");' );
$due = static function ( array $arguments ) {
	$result = Lab::script( 'cron.php', $arguments );
	return $result['said']['due'] ?? $result;
};
Lab::same( 'each blog knows its own events', array( 1, 1 ), array( $due( array( '--due' ) ), $due( array( '--due', $second ) ) ) );
$ran = Lab::script( 'cron.php', array( '--run', $second ) );
Lab::same( 'those of the second run', array( 1, 0 ), array( $ran['said']['ran'] ?? $ran, $ran['said']['due'] ?? null ) );
Lab::same( 'where its plugin hears them', '2https://lab.test/second/', Lab::wp( 'switch_to_blog(2);echo get_option("lab_only_ran");' ) );
Lab::same( 'and those of the first wait for its own run', 1, $due( array( '--due' ) ) );

// The network moves to another port; a blog with a domain of its own keeps that.
Lab::wp( '$wpdb->insert($wpdb->blogs,["site_id"=>1,"blog_id"=>7,"domain"=>"own.test","path"=>"/","registered"=>"2020-01-01 00:00:00"]);$wpdb->query("CREATE TABLE wp_7_options LIKE wp_2_options");$wpdb->query("INSERT INTO wp_7_options SELECT * FROM wp_2_options");foreach(["home","siteurl"] as $o)$wpdb->update("wp_7_options",["option_value"=>"https://own.test"],["option_name"=>$o]);' );
$write( 'lab.test:8443' );
Lab::same( 'a network moves with its port', 'moved', $install( 'lab.test:8443' )['said']['network'] ?? null );
$all = 'echo json_encode(array_map(function($s){return $s->domain.$s->path.\' \'.get_blog_option($s->id,"home").\' \'.get_blog_option($s->id,"siteurl");},get_sites(["orderby"=>"id"])));';
Lab::same(
	'and so do its blogs',
	array( 'lab.test:8443/ https://lab.test:8443 https://lab.test:8443', 'lab.test:8443/second/ https://lab.test:8443/second https://lab.test:8443/second', 'own.test:8443/ https://own.test:8443 https://own.test:8443' ),
	json_decode( Lab::wp( $all, array( 'LAB_HOST' => 'lab.test:8443' ) ), true )
);
$made = Lab::wp( '$id=wpmu_create_blog("third.lab.test:8443","/","Third",1,[],1);echo is_wp_error($id)?$id->get_error_message():get_site($id)->domain." ".get_home_url($id);', array( 'LAB_HOST' => 'lab.test:8443' ) );
Lab::same( 'a new blog has the port and the scheme', 'third.lab.test:8443 https://third.lab.test:8443', $made );
$write( 'new.test' );
$install( 'new.test' );
$domains = json_decode( Lab::wp( 'echo json_encode(wp_list_pluck(get_sites(["orderby"=>"id"]),"domain"));', array( 'LAB_HOST' => 'new.test' ) ), true );
Lab::same( 'it moves to another domain', array( 'new.test', 'new.test', 'own.test', 'third.new.test' ), $domains );
