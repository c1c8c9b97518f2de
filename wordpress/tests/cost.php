<?php
/** Round trips to Redis. @package Pressroom @license GPL-2.0-or-later */

Lab::wp( 'for ($i=0;$i<15;$i++) { $id = wp_insert_post(array("post_title"=>"Post $i","post_content"=>"text $i","post_status"=>"publish","post_category"=>array(1))); wp_set_post_tags($id, array("tag$i","common")); }' );
foreach ( array( '/', '/post-3/', '/tag/common/', '/wp-json/wp/v2/posts', '/feed/' ) as $uri ) {
	$seen = array();
	for ( $i = 0; $i < 4; ++$i ) {
		$page   = Lab::request( $uri );
		$seen[] = Lab::done( $page ) ? Lab::cost() : array();
	}
	$last = end( $seen );
	printf( "    %-22s first %d trips %d queries, then %d trips %d queries, %.1f ms\n", $uri, $seen[0]['trips'], $seen[0]['queries'], $last['trips'], $last['queries'], $last['seconds'] * 1000 );
	Lab::claim( "$uri takes at most 4 round trips when it was seen before", 200 === $page['status'] && $last['trips'] <= 4, $seen );
}
$page = Lab::request( '/post-9/' );
Lab::done( $page );
$cost = Lab::cost();
Lab::claim( 'a page never seen before profits from its kind', $cost['trips'] <= 25, $cost );
