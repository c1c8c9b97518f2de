<?php
/** What may be stored and what may not. @package Pressroom @license GPL-2.0-or-later */

$secret  = (int) Lab::wp( 'echo wp_insert_post(array("post_title"=>"Secret","post_content"=>"s","post_status"=>"publish","post_password"=>"pw"));' );
$related = Lab::wp( 'echo wp_insert_post(array("post_title"=>"Shown","post_content"=>"[gallery]","post_status"=>"publish","post_author"=>1,"post_category"=>array(1)));' );
$page    = Lab::wp( 'echo wp_insert_post(array("post_title"=>"About us","post_type"=>"page","post_status"=>"publish"));' );

/** @return array{0:array|null,1:string|null,2:array} */
$verdict = static function ( string $uri, array $more = array() ): array {
	$response = Lab::request( $uri, $more );
	$done     = Lab::done( $response );
	return array( $done['affirmation'] ?? null, $done['because'] ?? ( null === $done ? 'nothing was said' : null ), $response );
};

foreach ( array( '/' => 3600, '/shown/' => 3600, '/about-us/' => 3600, '/category/uncategorized/' => 3600, '/author/admin/' => 3600, '/feed/' => 3600, '/comments/feed/' => 3600, '/shown/feed/' => 3600, '/robots.txt' => 3600,
	'/wp-json/' => 3600, '/wp-json/wp/v2/posts' => 3600, "/wp-json/wp/v2/posts/$related" => 3600, '/wp-sitemap.xml' => 3600, '/wp-sitemap-posts-post-1.xml' => 3600, '/?s=shown' => 60, '/no-such-page/' => 60, '/shown' => 3600, '/?p=' . $related => 3600, '/?probe=flush' => 3600, '/?probe=option' => 3600 ) as $uri => $lifetime ) {
	list( $affirmation, $because, $response ) = $verdict( $uri );
	Lab::claim( "$uri may be stored for $lifetime s", null !== $affirmation && abs( $affirmation['ttl'] - $lifetime ) <= 0, array( $affirmation, $because, $response['headers'], substr( $response['body'], -300 ) ) );
}
foreach ( array(
	'/?probe=cookie'            => 'cookie set: cart',
	'/?probe=session'           => 'a session was opened',
	'/?probe=closed-session'    => 'a session was opened',
	'/?probe=donotcache'        => 'DONOTCACHEPAGE',
	'/?probe=exit'              => 'WordPress did not come to its normal end',
	'/?probe=exit-inside'       => 'WordPress did not come to its normal end',
	'/?probe=finish'            => '/finished before its end|connection was cut/',
	'/?probe=user'              => 'a user was set',
	'/?probe=vary'              => 'Vary: cookie',
	'/?probe=private'           => 'Cache-Control: private',
	'/?probe=die'               => 'wp_die()',
	'/?probe=fatal'             => '/^fatal error/',
	'/?probe=fatal-late'        => '/^fatal error|nothing was said/',
	'/secret/'                  => 'a post asks for its password',
	"/?p=$related&preview=true" => 'a preview',
	'/wp-json/wp/v2/users/me'   => 'status 401',
	'/wp-json/wp/v2/nowhere'    => 404,
	'/wp-login.php'             => '/cookie|normal end|Cache/',
) as $uri => $expected ) {
	$script = false !== strpos( $uri, 'wp-login' ) ? array( 'script' => '/wp-login.php' ) : array();
	list( $affirmation, $because, $response ) = $verdict( $uri, $script );
	if ( 404 === $expected ) {
		Lab::claim( "$uri is at most a short 404", null === $affirmation || 404 === $response['status'], $affirmation );
		continue;
	}
	$right = null === $affirmation && ( '/' === $expected[0] ? preg_match( $expected, (string) $because ) : $expected === $because );
	Lab::claim( "$uri may not be stored: $expected", $right, array( $affirmation, $because, $response['headers'] ) );
}
list( $affirmation, $because ) = $verdict( '/', array( 'params' => array( 'PRESSROOM_CANONICAL' => '' ) ) );
Lab::same( 'a request that is not canonical gets neither word nor reason', array( null, null ), array( $affirmation, $because ) );
list( $affirmation ) = $verdict( '/', array( 'params' => array( 'HTTP_AUTHORIZATION' => 'Basic eDp5' ) ) );
Lab::same( 'nor with credentials', null, $affirmation );
list( $affirmation ) = $verdict( '/?probe=nonce' );
Lab::claim( 'a nonce caps the time below half of what is left of it', $affirmation && $affirmation['ttl'] <= 43200 && $affirmation['ttl'] >= 21000, $affirmation );
list( $affirmation ) = $verdict( '/?probe=short-nonce' );
Lab::claim( 'a short nonce more so', $affirmation && $affirmation['ttl'] <= 300 && $affirmation['ttl'] >= 100, $affirmation );
list( , , $response ) = $verdict( '/no-such-page-2/' );
Lab::claim( 'a 404 is not forbidden to the edge, but browsers ask each time', false !== strpos( $response['headers'], 'max-age=0, must-revalidate' ) && false === strpos( $response['headers'], 'no-cache' ), $response['headers'] );

// Order: the word comes behind everything; a request that writes says so first.
Lab::listen();
$response = Lab::request( '/?probe=option' );
Lab::done( $response );
$said = array_column( Lab::heard(), 'say' );
Lab::same( 'writing comes before done, and an unknown option in a page view purges nothing', array( 'writing', 'done' ), $said );

// Tags.
$tags = static function ( string $uri ) use ( $verdict ): array {
	list( $affirmation, $because ) = $verdict( $uri );
	return $affirmation['tags'] ?? array( $because );
};
$has = static function ( string $uri, array $expected ) use ( $tags ) {
	$all = $tags( $uri );
	Lab::claim( "$uri has the tags " . implode( ' ', $expected ), ! array_diff( $expected, $all ), $all );
};
$has( '/', array( 'site', 'front', 'home', 'list-post', "post-$related", 'user-1', 'term-1' ) );
$has( '/shown/', array( "post-$related", 'user-1', 'term-1' ) );
$has( '/category/uncategorized/', array( 'archive', 'term-1', 'list-post', "post-$related" ) );
$has( '/author/admin/', array( 'archive', 'author-1', 'user-1', 'list-post' ) );
$has( '/feed/', array( 'feed', 'list-post', "post-$related" ) );
$has( '/?s=shown', array( 'search', 'list-post', 'query-post', "post-$related" ) );
$has( '/no-such-page/', array( '404' ) );
$has( '/wp-json/wp/v2/posts', array( 'rest', 'rest-posts', 'list-post', "post-$related" ) );
$has( '/wp-json/', array( 'rest' ) );
$has( '/wp-sitemap-posts-post-1.xml', array( 'sitemap', 'list-post' ) );
Lab::claim( 'a single post does not depend on every post', ! in_array( 'any', $tags( '/shown/' ), true ) );

// Readiness.
$response = Lab::request( '/', array( 'params' => array( 'PRESSROOM_READY' => '1', 'PRESSROOM_CANONICAL' => '' ) ) );
Lab::same( 'the readiness probe is answered', array( 200, "ready\n" ), array( $response['status'], $response['body'] ) );
file_put_contents( getenv( 'LAB_ROOT' ) . '/.maintenance', '<?php $upgrading = ' . time() . ';' );
$response = Lab::request( '/' );
Lab::same( 'maintenance mode closes the site', 503, $response['status'] );
$response = Lab::request( '/', array( 'params' => array( 'PRESSROOM_READY' => '1', 'PRESSROOM_CANONICAL' => '' ) ) );
Lab::same( 'but not the readiness probe', array( 200, "ready\n" ), array( $response['status'], $response['body'] ) );
unlink( getenv( 'LAB_ROOT' ) . '/.maintenance' );
rename( getenv( 'PRESSROOM_CONFIG' ), getenv( 'PRESSROOM_CONFIG' ) . '.real' );
file_put_contents( getenv( 'PRESSROOM_CONFIG' ), str_replace( 'db.sock', 'nowhere.sock', (string) file_get_contents( getenv( 'PRESSROOM_CONFIG' ) . '.real' ) ) );
$response = Lab::request( '/', array( 'params' => array( 'PRESSROOM_READY' => '1', 'PRESSROOM_CANONICAL' => '' ) ) );
Lab::claim( 'without a database the probe is not ready', 200 !== $response['status'], $response['headers'] );
rename( getenv( 'PRESSROOM_CONFIG' ) . '.real', getenv( 'PRESSROOM_CONFIG' ) );
