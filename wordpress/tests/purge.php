<?php
/** Every change, and what it purges. @package Pressroom @license GPL-2.0-or-later */

/** Runs code in WordPress on the command line, and returns what was purged. */
$purged_by = static function ( string $code ): array {
	Lab::listen();
	$GLOBALS['printed'] = Lab::wp( $code );
	return Lab::purged();
};
/** @param string[]|null $expected Tags; null: everything; an empty list: nothing. */
$claim = static function ( string $change, string $code, ?array $expected ) use ( $purged_by ): void {
	list( $tags, $all ) = $purged_by( $code );
	if ( null === $expected ) {
		Lab::claim( "$change purges everything", $all, $tags );
	} elseif ( array() === $expected ) {
		Lab::claim( "$change purges nothing", ! $all && array() === $tags, array( $all, $tags, array_slice( Lab::heard(), 0, 3 ) ) );
	} else {
		Lab::claim( "$change purges " . implode( ' ', $expected ), ! $all && ! array_diff( $expected, $tags ), array( $all, $tags ) );
	}
};
$make = static function ( string $arguments ): int {
	return (int) Lab::wp( "echo wp_insert_post($arguments);" );
};

$term  = (int) Lab::wp( 'echo wp_insert_term("Sport","category")["term_id"];' );
$draft = $make( '["post_title"=>"Draft","post_status"=>"draft","post_author"=>1]' );
$post  = $make( "['post_title'=>'Public','post_status'=>'publish','post_category'=>[$term],'post_author'=>1]" );
$page  = $make( '["post_title"=>"Page","post_type"=>"page","post_status"=>"publish"]' );
$list  = array( 'front', 'home', 'archive', 'feed', '404', 'list-post', 'author-1' );

// Posts.
$claim( 'a draft', 'wp_insert_post(["post_title"=>"x","post_status"=>"draft"]);', array() );
$claim( 'an edit of a draft', "wp_update_post(['ID'=>$draft,'post_content'=>'y']);", array() );
$claim( 'an autosave', "wp_set_current_user(1);wp_create_post_autosave(['post_ID'=>$post,'post_type'=>'post','post_title'=>'z','post_content'=>'z','post_excerpt'=>'']);", array() );
$claim( 'publishing', "wp_publish_post($draft);", array_merge( $list, array( "post-$draft" ) ) );
$claim( 'a new public post', "wp_insert_post(['post_title'=>'new','post_status'=>'publish','post_category'=>[$term],'post_author'=>1]);", array_merge( $list, array( "term-$term" ) ) );
$claim( 'an edited text', "wp_update_post(['ID'=>$post,'post_content'=>'other']);", array( "post-$post", 'query-post' ) );
$claim( 'a new title', "wp_update_post(['ID'=>$post,'post_title'=>'other title']);", array_merge( $list, array( "post-$post" ) ) );
$claim( 'a new page', 'wp_insert_post(["post_title"=>"p","post_type"=>"page","post_status"=>"publish"]);', array( 'list-page' ) );
$claim( 'a category more', "wp_set_post_categories($post,[1],true);", array( "post-$post", 'term-1', 'list-post' ) );
$claim( 'a tag', "wp_set_post_tags($post,['fresh']);", array( "post-$post", 'list-post', 'list-terms-post_tag' ) );
$claim( 'a meta value', "update_post_meta($post,'_price','9');", array( "post-$post", 'query-post' ) );
$claim( 'a stock of zero, deleted', "update_post_meta($post,'_stock','0');delete_post_meta($post,'_stock');", array( "post-$post" ) );
$claim( 'an edit lock', "update_post_meta($post,'_edit_lock','1:1');", array() );
$claim( 'meta of a draft', 'update_post_meta(' . $make( '["post_title"=>"d","post_status"=>"draft"]' ) . ',"_price","9");', array() );
$claim( 'a sticky post', "stick_post($post);", null );
$claim( 'one sticky no more', "unstick_post($post);", null );
$claim( 'a featured image', "set_post_thumbnail($post,$page);update_post_meta($post,'_thumbnail_id','$page');", array( "post-$post" ) );
$claim( 'a post becoming private', "wp_update_post(['ID'=>$draft,'post_status'=>'private']);", array_merge( $list, array( "post-$draft" ) ) );
$claim( 'trash', "wp_trash_post($post);", array_merge( $list, array( "post-$post", "term-$term" ) ) );
$claim( 'untrash and publish', "wp_untrash_post($post);wp_publish_post($post);", array_merge( $list, array( "post-$post" ) ) );
$gone = $make( "['post_title'=>'gone','post_status'=>'publish','post_category'=>[$term],'post_author'=>1]" );
$claim( 'deletion', "wp_delete_post($gone,true);", array_merge( $list, array( "post-$gone" ) ) );
$claim( 'an attachment', 'wp_insert_attachment(["post_title"=>"img","post_mime_type"=>"image/png"],"a.png");', array( 'list-attachment' ) );
$image = (int) Lab::wp( 'echo wp_insert_attachment(["post_title"=>"img","post_mime_type"=>"image/png"],"b.png");' );
$claim( 'an edited image', "wp_update_attachment_metadata($image,['width'=>1]);", array( "post-$image" ) );
$claim( 'a deleted image', "wp_delete_attachment($image,true);", array( "post-$image" ) );
$scheduled = $make( '["post_title"=>"Later","post_status"=>"future","post_author"=>1,"post_date"=>gmdate("Y-m-d H:i:s",time()+3600)]' );
// The hour passes.
Lab::wp( "\$wpdb->update(\$wpdb->posts,['post_date'=>'2020-01-01 00:00:00','post_date_gmt'=>'2020-01-01 00:00:00'],['ID'=>$scheduled]);clean_post_cache($scheduled);wp_clear_scheduled_hook('publish_future_post',[$scheduled]);wp_schedule_single_event(time()-1,'publish_future_post',[$scheduled]);" );
Lab::listen();
$ran = Lab::script( 'cron.php', array( '--run' ) );
list( $tags ) = Lab::purged();
Lab::claim( 'a scheduled post is published and purged by the scheduler', ( $ran['said']['ran'] ?? 0 ) > 0 && ! array_diff( array( 'front', 'feed', 'list-post', "post-$scheduled" ), $tags ), array( $ran, $tags ) );

// Comments.
$claim( 'a waiting comment', "wp_insert_comment(['comment_post_ID'=>$post,'comment_content'=>'c','comment_approved'=>0]);", array() );
$comment = (int) Lab::wp( "echo wp_insert_comment(['comment_post_ID'=>$post,'comment_content'=>'c','comment_approved'=>0]);" );
$claim( 'approval', "wp_set_comment_status($comment,'approve');", array( "post-$post", "comment-$comment", 'list-comments', 'comment-feed' ) );
$claim( 'an edited comment', "wp_update_comment(['comment_ID'=>$comment,'comment_content'=>'e']);", array( "post-$post", "comment-$comment" ) );
$claim( 'spam', "wp_spam_comment($comment);", array( "post-$post", 'list-comments' ) );
$claim( 'deleted spam', "wp_delete_comment($comment,true);", array() );
$claim( 'an approved comment', "wp_insert_comment(['comment_post_ID'=>$post,'comment_content'=>'c','comment_approved'=>1]);", array( "post-$post", 'list-comments' ) );

// Terms, menus, users.
$claim( 'a new term', 'wp_insert_term("Culture","category");', array( 'list-terms-category' ) );
$claim( 'a renamed term', "wp_update_term($term,'category',['name'=>'Sports']);", array( "term-$term", 'list-terms-category' ) );
$claim( 'a deleted term', "wp_delete_term($term,'category');", array( "term-$term" ) );
$menu = (int) Lab::wp( 'echo wp_create_nav_menu("Main");' );
$claim( 'a menu item', "wp_update_nav_menu_item($menu,0,['menu-item-title'=>'Home','menu-item-url'=>'/','menu-item-status'=>'publish']);", array( "menu-$menu" ) );
$claim( 'a menu location', "set_theme_mod('nav_menu_locations',['primary'=>$menu]);", null );
$claim( 'a renamed menu', "wp_update_nav_menu_object($menu,['menu-name'=>'Top']);", array( "menu-$menu" ) );
$claim( 'a display name', 'wp_update_user(["ID"=>1,"display_name"=>"Ada"]);', array( 'user-1', 'author-1' ) );
$claim( 'a biography', 'update_user_meta(1,"description","writes");', array( 'user-1' ) );
$claim( 'a log-in', 'WP_Session_Tokens::get_instance(1)->create(time()+99);update_user_meta(1,"wp_user-settings","x");', array() );
$claim( 'a deleted user', 'require ABSPATH."wp-admin/includes/user.php";$u=wp_create_user("bob","x","b@lab.test");wp_delete_user($u,1);', array( 'list-users' ) );

// Options, theme, plugins, widgets.
$claim( 'the title', 'update_option("blogname","New title");', null );
$claim( 'posts per page', 'update_option("posts_per_page",7);', null );
$claim( 'an unknown option', 'update_option("some_plugin_colour","red");', null );
$claim( 'a widget', 'update_option("widget_text",["2"=>["title"=>"t"]]);', null );
$claim( 'the theme', 'do_action("switch_theme");', null );
$claim( 'a plugin', 'update_option("active_plugins",["x.php"]);update_option("active_plugins",[]);', null );
$claim( 'bookkeeping', 'set_transient("t",1);update_option("_transient_x",1);wp_schedule_single_event(time()+999,"x");update_option("recently_activated",[1]);set_site_transient("u",1);update_option("auto_updater.lock",time());', array() );
$claim( 'expired transients', 'delete_expired_transients(true);', array() );

// Plain SQL.
$claim( 'a title changed by SQL', "\$wpdb->query(\"UPDATE \$wpdb->posts SET post_title='by sql' WHERE ID=$post\");", array( "post-$post", 'list-post' ) );
Lab::wp( "get_post($post);" );
Lab::same( 'and the object cache does not hide it', 'by sql', Lab::wp( "echo get_post($post)->post_title;" ) );
$claim( 'many titles changed by SQL', "\$wpdb->query(\"UPDATE \$wpdb->posts SET post_content='mass' WHERE post_status='publish'\");", null );
Lab::same( 'and the object cache does not hide them', 'mass', Lab::wp( "echo get_post($post)->post_content;" ) );
$claim( 'an option changed by SQL', "\$wpdb->update(\$wpdb->options,['option_value'=>'SQL title'],['option_name'=>'blogname']);", null );
Lab::same( 'and the object cache does not hide it either', 'SQL title', Lab::wp( 'echo get_option("blogname");' ) );
$claim( 'meta changed by SQL', "\$wpdb->query(\"INSERT INTO \$wpdb->postmeta (post_id,meta_key,meta_value) VALUES ($post,'k','v')\");", null );
$claim( 'a comment changed by SQL', "\$wpdb->update(\$wpdb->comments,['comment_content'=>'sql'],['comment_ID'=>1]);", array( 'comment-1', 'post-1' ) );
$claim( 'a table of a plugin', '$wpdb->query("CREATE TABLE IF NOT EXISTS wp_plug (a INT)");$wpdb->query("INSERT INTO wp_plug VALUES (1)");', array() );
$claim( 'a rolled back transaction', "\$wpdb->query('START TRANSACTION');update_post_meta($post,'_x','1');\$wpdb->query('ROLLBACK');", array( "post-$post" ) );

// When: at once, but not before the commit; batched; summed up.
Lab::listen();
Lab::wp( "\$GLOBALS['t0']=microtime(true);update_post_meta($post,'_a',microtime());usleep(400000);echo 1;" );
$heard = Lab::heard();
Lab::claim( 'a purge is sent at once and again at the end', 2 === count( $heard ) && $heard[1]['at'] - $heard[0]['at'] > 0.35, $heard );
Lab::listen();
$at = (float) Lab::wp( "\$wpdb->query('START TRANSACTION');update_post_meta($post,'_a',microtime());usleep(300000);echo microtime(true);\$wpdb->query('COMMIT');\$wpdb->query('SELECT 1');" );
Lab::claim( 'a purge waits for the commit', Lab::heard()[0]['at'] >= $at, array( $at, Lab::heard() ) );
Lab::listen();
Lab::wp( 'for($i=0;$i<60;$i++) wp_insert_post(["post_title"=>"bulk $i","post_status"=>"publish"]);' );
Lab::claim( 'sixty posts are few messages', count( Lab::heard() ) <= 25, count( Lab::heard() ) );
Lab::listen();
Lab::wp( 'for($i=0;$i<600;$i++) Pressroom_Purge::tags(["post-$i"]);' );
Lab::claim( 'six hundred tags become everything', Lab::purged()[1] && count( Lab::heard() ) <= 4, Lab::heard() );

// Through php-fpm: writing first, purges at once, all again in done.
Lab::listen();
$response = Lab::request( '/wp-comments-post.php', array(
	'script' => '/wp-comments-post.php',
	'body'   => 'comment=Hello+there&author=Eve&email=e%40lab.test&comment_post_ID=' . $post,
	'params' => array( 'REQUEST_METHOD' => 'POST', 'PRESSROOM_CANONICAL' => '' ),
) );
$done  = Lab::done( $response );
$heard = Lab::heard();
Lab::claim( 'a visitor\'s comment: 302, writing first, then done', 302 === $response['status'] && 'writing' === $heard[0]['say'] && null !== $done && ! isset( $done['affirmation'] ), array( $response['headers'], $heard ) );
Lab::wp( 'update_option("comment_moderation","");update_option("comment_previously_approved","");' );
Lab::listen();
$response = Lab::request( '/wp-comments-post.php', array(
	'script' => '/wp-comments-post.php',
	'body'   => 'comment=Hello+again&author=Ann&email=n%40lab.test&comment_post_ID=' . $post,
	'params' => array( 'REQUEST_METHOD' => 'POST', 'PRESSROOM_CANONICAL' => '', 'REMOTE_ADDR' => '192.0.2.2' ),
) );
$done  = Lab::done( $response );
$heard = Lab::heard();
Lab::claim( 'an approved one is purged at once and again in done', 'purge' === ( $heard[1]['say'] ?? '' ) && in_array( "post-$post", $done['purge']['tags'] ?? array(), true ), $heard );
Lab::same( 'all words of a request carry its token', array( $response['token'] ), array_values( array_unique( array_column( $heard, 'request' ) ) ) );

// No edge, or one that does not answer.
$note = dirname( getenv( 'PRESSROOM_CONFIG' ), 2 ) . '/tmp/purge-everything';
touch( getenv( 'LAB' ) . '/edge.log.silent' );
$began = microtime( true );
$spent = (float) Lab::wp( "\$t=microtime(true);for(\$i=0;\$i<5;\$i++){update_post_meta($post,'_a',microtime());usleep(210000);}echo microtime(true)-\$t-5*0.21;" );
Lab::claim( sprintf( 'an edge that does not confirm costs a save at most 300 ms in all (%.0f)', $spent * 1000 ), $spent < 0.45 );
Lab::claim( 'and is noted', file_exists( $note ) );
unlink( getenv( 'LAB' ) . '/edge.log.silent' );
Lab::listen();
Lab::done( Lab::request( '/' ) );
clearstatcache();
Lab::claim( 'the next request purges everything, once', Lab::purged()[1] && ! file_exists( $note ), Lab::heard() );
$out = Lab::wp( "update_post_meta($post,'_a',microtime());echo 'saved';", array( 'PRESSROOM_AFFIRM' => getenv( 'LAB' ) . '/no-edge.sock' ) );
clearstatcache();
Lab::claim( 'without an edge a save works and is noted', 'saved' === $out && file_exists( $note ), $out );
@unlink( $note );
