<?php
/** A copied database moves to another address. In a database of its own. @package Pressroom @license GPL-2.0-or-later */

foreach ( array( 'addresses', 'serialised', 'values' ) as $part ) {
	require_once __DIR__ . "/../$part.php";
}

$mover  = static function ( array $from = array( 'https://shop.example.com' ), string $to = 'https://staging.shop.example.com:8443', array $paths = array() ): Pressroom_Values {
	return new Pressroom_Values( new Pressroom_Addresses( $from, $to, $paths ) );
};
$values = $mover();
$old    = 'https://shop.example.com';
$new    = 'https://staging.shop.example.com:8443';

// --- Forms of an address -------------------------------------------------------------------------------------------------

$forms = static function ( Pressroom_Values $values, array $cases ): void {
	foreach ( $cases as $text => $expected ) {
		$moved = $values->move( (string) $text );
		Lab::same( "moves: $text", $expected ?? (string) $text, $moved );
		Lab::same( "moves once: $text", $moved, $values->move( $moved ) );
	}
};
$forms( $values, array(
	'https://shop.example.com'                            => 'https://staging.shop.example.com:8443',
	'see http://shop.example.com/a?b=c#d.'                => 'see https://staging.shop.example.com:8443/a?b=c#d.',
	'HTTPS://Shop.Example.COM/'                           => 'https://staging.shop.example.com:8443/',
	'https://shop.example.com:443/a http://shop.example.com:80/b' => 'https://staging.shop.example.com:8443/a https://staging.shop.example.com:8443/b',
	'<img src="//shop.example.com/a.png">'                => '<img src="//staging.shop.example.com:8443/a.png">',
	'url(//shop.example.com/a.png)'                       => 'url(//staging.shop.example.com:8443/a.png)',
	'{"a":"https:\/\/shop.example.com\/b"}'               => '{"a":"https:\/\/staging.shop.example.com:8443\/b"}',
	'{"a":"https:\u002F\u002Fshop.example.com\u002fb"}'   => '{"a":"https:\u002F\u002Fstaging.shop.example.com:8443\u002fb"}',
	'{"a":"{\"b\":\"https:\\\\\/\\\\\/shop.example.com\"}"}' => '{"a":"{\"b\":\"https:\\\\\/\\\\\/staging.shop.example.com:8443\"}"}',
	'{"a":"\/\/shop.example.com","b":"x\n\/\/shop.example.com"}' => '{"a":"\/\/staging.shop.example.com:8443","b":"x\n\/\/staging.shop.example.com:8443"}',
	'<!-- wp:x {"u":"\u003ca href=\u0022//shop.example.com\u0022"} -->' => '<!-- wp:x {"u":"\u003ca href=\u0022//staging.shop.example.com:8443\u0022"} -->',
	'?u=https%3A%2F%2Fshop.example.com%2Fa'               => '?u=https%3A%2F%2Fstaging.shop.example.com%3A8443%2Fa',
	'?u=http%3a%2f%2fshop.example.com%3a80%2fa'           => '?u=https%3a%2f%2fstaging.shop.example.com%3a8443%2fa',
	'?u=%22%2F%2Fshop.example.com%2Fa'                    => '?u=%22%2F%2Fstaging.shop.example.com%3A8443%2Fa',
	'?u=https%253A%252F%252Fshop.example.com%252Fa'       => '?u=https%253A%252F%252Fstaging.shop.example.com%253A8443%252Fa',
	'https://shop.example.com: that is it. //shop.example.com.' => 'https://staging.shop.example.com:8443: that is it. //staging.shop.example.com:8443.',
	'漢字https://shop.example.comをご覧'                      => '漢字https://staging.shop.example.com:8443をご覧',
	'“https://shop.example.com.”'                         => '“https://staging.shop.example.com:8443.”',
	'{"a":"x\nhttps:\/\/shop.example.com\n","b":"\u0022https:\/\/shop.example.com"}' => '{"a":"x\nhttps:\/\/staging.shop.example.com:8443\n","b":"\u0022https:\/\/staging.shop.example.com:8443"}',
	'?u=%22https%3A%2F%2Fshop.example.com%22'             => '?u=%22https%3A%2F%2Fstaging.shop.example.com%3A8443%22',
	// Other addresses.
	'https://shop.example.com.evil.org/ https://shop.example.com-x.org //shop.example.community' => null,
	'https://myshop.example.com/ https://my.shop.example.com //x-shop.example.com' => null,
	'https://shop.example.com_x/ https://shop.example.com.中国/'   => null,
	'https://shop.example.com:8080/ //shop.example.com:4430/ https://shop.example.com:80/' => null,
	'https://shop.example.com@evil.org/ https://shop.example.com:8443@evil.org/ https://shop.example.com:pass@evil.org/' => null,
	'https://shop.example.com%2Eevil.org https%3A%2F%2Fshop.example.com%2eorg' => null,
	'ftp://shop.example.com/ wss:\/\/shop.example.com'     => null,
	'https://web.archive.org/web//shop.example.com/ a///shop.example.com' => null,
	'mailto:me@shop.example.com shop.example.com/a'       => null,
	base64_encode( $old ) . ' ' . base64_encode( "x$old" ) => null,
) );
$forms( $mover( array( 'https://a.test:8443', 'http://b.test:80', 'https://xn--bcher-kva.test' ), 'http://new.test' ), array(
	'https://a.test:8443/ http://a.test:8443/ //a.test:8443' => 'http://new.test/ http://new.test/ //new.test',
	'https%3A%2F%2Fa.test%3A8443%2F'                      => 'http%3A%2F%2Fnew.test%2F',
	'https://a.test/ https://a.test:84/ https://a.test:84430/' => null,
	'https://b.test/ http://b.test:80/'                   => 'http://new.test/ http://new.test/',
	'<!-- wp:x {"u":"https://xn\u002d\u002dbcher\u002dkva.test/"} -->' => '<!-- wp:x {"u":"http://new.test/"} -->',
) );
$forms( $mover( array( 'https://a.test' ), 'https://a.test:8443' ), array( 'https://a.test/ http://a.test:80 //a.test' => 'https://a.test:8443/ https://a.test:8443 //a.test:8443' ) );
$forms( $mover( array( 'https://a.test:8443' ), 'https://a.test' ), array( 'https://a.test:8443/ https://a.test/' => 'https://a.test/ https://a.test/' ) );
$forms( $mover( array( $old ), $new, array( array( '/srv/old', '/srv/old/staging' ), array( '/var/www/a.b', '/new' ) ) ), array(
	'/srv/old/x.php /srv/older /srv/old.bak /x/srv/old file:///srv/old' => '/srv/old/staging/x.php /srv/older /srv/old.bak /x/srv/old file:///srv/old/staging',
	'{"f":"\/var\/www\/a.b\/c"}'                          => '{"f":"\/new\/c"}',
	'f=%2Fvar%2Fwww%2Fa.b%2Fc'                            => 'f=%2Fnew%2Fc',
	'/var/www/axb https://x.org/var/www/a.b'              => null,
) );

// --- Serialised data -----------------------------------------------------------------------------------------------------

/** What can be compared: objects of unknown classes as their members, and no end of a circle. */
$plain = static function ( $value, int $depth = 0 ) use ( &$plain ) {
	if ( $depth > 12 ) {
		return 'deep';
	}
	if ( is_object( $value ) ) {
		return array( 'object' => $plain( (array) $value, $depth + 1 ) );
	}
	if ( is_array( $value ) ) {
		foreach ( $value as $key => $member ) {
			$members[ $key ] = $plain( $member, $depth + 1 );
		}
		return $members ?? array();
	}
	return is_float( $value ) ? var_export( $value, true ) : $value;
};
/** The same, with strings as what is packed in them. */
$unpacked = static function ( $value ) use ( &$unpacked ) {
	if ( is_object( $value ) ) {
		return array( 'object' => $unpacked( (array) $value ) );
	}
	if ( is_string( $value ) && preg_match( '/^(?:[aO]:\d+:|s:\d+:".*";$)/s', $value ) && false !== ( $inner = @unserialize( $value, array( 'allowed_classes' => false ) ) ) ) {
		return array( 'serialised' => $unpacked( $inner ) );
	}
	if ( is_string( $value ) && preg_match( '/^[{\["]/', $value ) && null !== ( $inner = json_decode( $value ) ) ) {
		return array( 'JSON' => $unpacked( $inner ) );
	}
	return is_array( $value ) ? array_map( $unpacked, $value ) : ( is_float( $value ) ? var_export( $value, true ) : $value );
};
$read  = static function ( string $data ) use ( $plain ) {
	$value = @unserialize( $data, array( 'allowed_classes' => false ) );
	return false === $value && 'b:0;' !== $data ? 'NOT READABLE' : $plain( $value );
};
/** As somebody would do it who knows all classes. Texts have the plain form only. */
$naive = static function ( $value ) use ( &$naive, $old, $new ) {
	if ( is_array( $value ) ) {
		$moved = array();
		foreach ( $value as $key => $member ) {
			$moved[ is_string( $key ) && "\0" !== ( $key[0] ?? '' ) ? $naive( $key ) : $key ] = $naive( $member );
		}
		return $moved;
	}
	if ( is_object( $value ) ) {
		$moved = new stdClass();
		foreach ( (array) $value as $key => $member ) {
			$moved->{$naive( (string) $key )} = $naive( $member );
		}
		return $moved;
	}
	if ( ! is_string( $value ) ) {
		return $value;
	}
	if ( preg_match( '/^[aOs]:\d+:/', $value ) && false !== ( $inner = @unserialize( $value ) ) ) {
		return serialize( $naive( $inner ) );
	}
	if ( preg_match( '/^[{\["]/', $value ) && null !== ( $inner = json_decode( $value ) ) ) {
		return json_encode( $naive( $inner ), JSON_PRESERVE_ZERO_FRACTION );
	}
	return str_replace( $old, $new, $value );
};

final class Lab_Members {
	public $url;
	protected $guarded;
	private $own;
	public function __construct( string $url ) {
		$this->url     = $url;
		$this->guarded = array( $url => -1.5 );
		$this->own     = "$url/ü";
	}
}

$corpus = static function ( string $url ): array {
	$object        = new stdClass();
	$object->url   = "$url/x";
	$object->again = $object;
	$list          = array( 'a' => "$url/1" );
	$list['b']     = &$list['a'];
	$list['c']     = array( $object, $object );
	$self          = new ArrayObject( array( 'u' => $url ) );
	return array(
		'a widget'            => array( 2 => array( 'title' => 'Grüße', 'text' => "<a href=\"$url/\">日本</a>" ), '_multiwidget' => 1 ),
		'theme mods'          => array( 0 => false, 'nav_menu_locations' => array( 'primary' => 3 ), 'header_image' => "$url/h.jpg", 'header_image_data' => (object) array( 'url' => "$url/h.jpg", 'width' => 1.5, 'x' => -7, 'n' => null ) ),
		'references'          => $list,
		'private members'     => new Lab_Members( $url ),
		'a container of SPL'  => $self,
		'keys'                => array( "$url/k" => 1, 5 => $url, '' => INF, 'f' => -INF, 'g' => 1.0E+25, 'h' => -0.0 ),
		'strings in strings'  => serialize( array( serialize( array( 'é' => "$url/é", 'n' => serialize( $url ) ) ) ) ),
		'JSON in a string'    => array( '_elementor_data' => json_encode( array( array( 'settings' => array( 'url' => "$url/é", 'n' => 1.0 ) ) ) ), 'raw' => json_encode( array( $url ), JSON_UNESCAPED_SLASHES ) ),
		'serialised in JSON'  => json_encode( array( 'é' => serialize( array( 'u' => "$url/é" ) ), 'n' => 12345678901234567890, 'j' => json_encode( array( serialize( $url ) ) ) ) ),
		'one MB'              => array( 'before' => $url, 'big' => str_repeat( "<p>$url/ü lorem ipsum</p>", 25000 ), 'after' => $url ),
		'many members'        => array_fill( 0, 20000, array( 'x' => 1, 'y' => "$url/" ) ),
		'quotes and braces'   => array( "\";}{$url}\";s:3:\"", "'\\\"$url" ),
		'an empty one'        => array( array(), '', new stdClass() ),
	);
};
$before = $corpus( $old );
$after  = $corpus( $new );
foreach ( $before as $what => $value ) {
	$began = microtime( true );
	$moved = $values->move( serialize( $value ) );
	$took  = microtime( true ) - $began;
	Lab::claim( "$what: byte for byte", serialize( $after[ $what ] ) === $moved, substr( $moved, 0, 900 ) );
	Lab::same( "$what: nothing is broken", array(), $values->reasons() );
	Lab::claim( "$what: within half a second", $took < 0.5, $took );
	Lab::claim( "$what: it can be read", 'NOT READABLE' !== $read( $moved ) );
	Lab::claim( "$what: a second time changes nothing", $moved === $values->move( $moved ) );
	if ( is_string( $value ) ) {
		Lab::claim( "$what: also alone", $after[ $what ] === $values->move( $value ), $values->move( $value ) );
	}
	// Nobody knows the classes.
	$unknown = str_replace( array( '11:"Lab_Members"', "\0Lab_Members\0", '8:"stdClass"' ), array( '11:"Lab_Unknown"', "\0Lab_Unknown\0", '8:"Unknown1"' ), serialize( $value ) );
	Lab::claim( "$what: with unknown classes", $read( str_replace( array( '11:"Lab_Members"', "\0Lab_Members\0", '8:"stdClass"' ), array( '11:"Lab_Unknown"', "\0Lab_Unknown\0", '8:"Unknown1"' ), serialize( $after[ $what ] ) ) ) == $read( $values->move( $unknown ) ) );
}
$moved = unserialize( $values->move( serialize( $before['references'] ) ) );
$moved['a'] = 'changed';
Lab::claim( 'references are references', 'changed' === $moved['b'] && $moved['c'][0] === $moved['c'][1] && $moved['c'][0]->again === $moved['c'][0] );

$sound = array(
	'an enumeration'                  => array( 'a:2:{i:0;E:11:"Suit:Hearts";i:1;s:24:"https://shop.example.com";}', 'a:2:{i:0;E:11:"Suit:Hearts";i:1;s:37:"https://staging.shop.example.com:8443";}' ),
	'an own form of ArrayObject'      => array( 'a:1:{i:0;C:11:"ArrayObject":71:{x:i:0;a:1:{s:1:"u";s:24:"https://shop.example.com";};m:a:1:{s:1:"k";N;}}}', 'a:1:{i:0;C:11:"ArrayObject":84:{x:i:0;a:1:{s:1:"u";s:37:"https://staging.shop.example.com:8443";};m:a:1:{s:1:"k";N;}}}' ),
	'serialised data of a class'      => array( 'C:3:"Foo":32:{s:24:"https://shop.example.com";}', 'C:3:"Foo":45:{s:37:"https://staging.shop.example.com:8443";}' ),
	'JSON of a class'                 => array( 'C:3:"Foo":28:{["https://shop.example.com"]}', 'C:3:"Foo":41:{["https://staging.shop.example.com:8443"]}' ),
	'space around'                    => array( "\n s:24:\"https://shop.example.com\"; \0", "\n s:37:\"https://staging.shop.example.com:8443\"; \0" ),
	'serialised in the middle'        => array( 'x={s:24:"https://shop.example.com";} //shop.example.com', 'x={s:37:"https://staging.shop.example.com:8443";} //staging.shop.example.com:8443' ),
	'JSON with hexadecimal quotes'    => array( '{"a":"s:24:\u0022https:\/\/shop.example.com\u0022;"}', '{"a":"s:37:\u0022https:\/\/staging.shop.example.com:8443\u0022;"}' ),
);
foreach ( $sound as $what => list( $data, $expected ) ) {
	Lab::same( $what, $expected, $values->move( $data ) );
	Lab::same( "$what: nothing is broken", array(), $values->reasons() );
	Lab::same( "$what: a second time", $expected, $values->move( $expected ) );
}
$broken = array(
	'a length too long'    => 'a:1:{i:0;s:25:"https://shop.example.com";}',
	'a length too short'   => 'a:1:{i:0;s:23:"https://shop.example.com";}',
	'a length in letters'  => 'a:1:{s:4:"grün";s:24:"https://shop.example.com";}',
	'a huge length'        => 's:9999999999:"https://shop.example.com";',
	'cut off'              => 'a:2:{i:0;s:24:"https://shop.example.com";i:1;s:10:"ab',
	'too few members'      => 'a:3:{i:0;s:24:"https://shop.example.com";}',
	'too many members'     => 'a:1:{i:0;s:24:"https://shop.example.com";i:1;N;}',
	'something behind'     => 's:24:"https://shop.example.com";s:1:"x";',
	'a key of no kind'     => 'a:1:{N;s:24:"https://shop.example.com";}',
	'an unknown token'     => 'a:2:{i:0;s:24:"https://shop.example.com";i:1;S:1:"a";}',
	'an own form'          => 'C:3:"Foo":26:{1|https://shop.example.com}',
	'too deep'             => str_repeat( 'a:1:{i:0;', 5000 ) . 's:24:"https://shop.example.com";' . str_repeat( '}', 5000 ),
);
foreach ( $broken as $what => $data ) {
	Lab::same( "broken stays: $what", $data, $values->move( $data ) );
	Lab::claim( "and is told: $what", 1 === count( $values->reasons() ), $values->reasons() );
	$moved = $values->move( serialize( array( $data, $old ) ) );
	Lab::same( "inside of something sound, too: $what", serialize( array( $data, $new ) ), $moved );
	Lab::claim( "and is told there: $what", 1 === count( $values->reasons() ), $values->reasons() );
}
$keys = array( 'http://shop.example.com' => 1, 'https://shop.example.com' => 2, 'x' => 3 );
Lab::same( 'no member is lost to a key that is there', 3, count( unserialize( $values->move( serialize( $keys ) ) ) ) );
Lab::claim( 'and this is told', array() !== $values->reasons(), $values->reasons() );
$moved = $values->move( serialize( $keys ) );
Lab::same( 'a second time, too', $moved, $values->move( $moved ) );
$deep = $old;
for ( $i = 0; $i < 30; ++$i ) {
	$deep = serialize( array( $deep ) );
}
for ( $moved = $values->move( $deep ), $i = 0; $i < 30; ++$i ) {
	$moved = unserialize( $moved )[0];
}
Lab::same( 'thirty levels of strings', $new, $moved );

// Random structures.
$seed = (int) ( getenv( 'SEED' ) ?: random_int( 1, 1 << 30 ) );
mt_srand( $seed );
$grow = static function ( int $depth ) use ( &$grow, $old ) {
	$texts = array( $old, "$old/é/?a=1", "日本 $old/ \"quoted\"; $old", "x\0y $old", "me@shop.example.com", 's:5:"', '";}', '', "plain", "\u{1F600}" );
	switch ( mt_rand( 0, $depth > 0 ? 12 : 6 ) ) {
		case 0:
			return mt_rand( -1000, 1000 );
		case 1:
			return mt_rand( -1000, 1000 ) / 7;
		case 2:
			return array( null, true, false, INF )[ mt_rand( 0, 3 ) ];
		case 7:
		case 8:
			$list = array();
			for ( $i = mt_rand( 0, 5 ); $i > 0; --$i ) {
				$list[ mt_rand( 0, 1 ) ? mt_rand( -9, 99 ) : ( mt_rand( 0, 3 ) ? "k$i" : "$old/$i" ) ] = $grow( $depth - 1 );
			}
			return $list;
		case 9:
			$object = new stdClass();
			for ( $i = mt_rand( 0, 4 ); $i > 0; --$i ) {
				$object->{"m$i"} = $grow( $depth - 1 );
			}
			return $object;
		case 10:
		case 11:
			return serialize( $grow( $depth - 1 ) );
		case 12:
			$json = json_encode( $grow( $depth - 1 ), ( mt_rand( 0, 1 ) ? JSON_UNESCAPED_SLASHES : 0 ) | JSON_PRESERVE_ZERO_FRACTION );
			return false === $json ? 'no JSON' : $json;
	}
	return $texts[ mt_rand( 0, count( $texts ) - 1 ) ];
};
$exact = new Pressroom_Values( new Pressroom_Addresses( array( $old ), $new ) );
$wrong = 0;
for ( $round = 0; $round < 3000 && $wrong < 3; ++$round ) {
	$value    = array( $grow( 6 ) );
	$moved    = $exact->move( serialize( $value ) );
	$reasons  = $exact->reasons();
	$expected = $unpacked( $naive( $value ) );
	$actual   = $unpacked( @unserialize( str_replace( 'O:8:"stdClass"', 'O:8:"Unknown1"', $moved ), array( 'allowed_classes' => false ) ) );
	if ( $unpacked( unserialize( $moved, array( 'allowed_classes' => array( 'stdClass' ) ) ) ) !== $expected || array() !== $reasons || ! is_array( $actual ) ) {
		++$wrong;
		Lab::claim( "random structures move as somebody would do it who knows them (SEED=$seed, round $round)", false, array( $reasons, serialize( $value ), $moved, serialize( $naive( $value ) ) ) );
	}
	if ( $moved !== $exact->move( $moved ) ) {
		++$wrong;
		Lab::claim( "random structures move once (SEED=$seed, round $round)", false, $moved );
	}
}
Lab::claim( 'random structures', 0 === $wrong );
echo "rewrite: seed $seed\n";

// --- A database ----------------------------------------------------------------------------------------------------------

$config  = getenv( 'PRESSROOM_CONFIG' );
$its_own = getenv( 'LAB' ) . '/moved.php';
file_put_contents( $its_own, str_replace( "'DB_NAME', 'wp'", "'DB_NAME', 'moved'", file_get_contents( $config ) ) );
mysqli_report( MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT );
$connect = static function (): mysqli {
	$database = new mysqli( 'localhost', 'root', '', '', 0, getenv( 'LAB' ) . '/db.sock' );
	$database->set_charset( 'utf8mb4' );
	return $database;
};
$database = $connect();
$database->query( "SET sql_mode = ''" );
$database->query( 'DROP DATABASE IF EXISTS moved' );
$database->query( 'CREATE DATABASE moved CHARACTER SET utf8mb4' );
$database->select_db( 'moved' );
foreach ( array( 'posts', 'postmeta', 'options', 'users', 'usermeta', 'comments', 'commentmeta', 'links', 'terms', 'term_taxonomy', 'term_relationships' ) as $table ) {
	$database->query( "CREATE TABLE wp_$table LIKE wp.wp_$table" );
}
$put  = static function ( string $table, array $row ) use ( $database ): void {
	$database->execute_query( "INSERT INTO $table (`" . implode( '`,`', array_keys( $row ) ) . '`) VALUES (' . implode( ',', array_fill( 0, count( $row ), '?' ) ) . ')', array_values( $row ) );
};
$get  = static function ( string $sql ) use ( $database ) {
	$rows = $database->query( $sql )->fetch_all();
	return 1 === count( $rows ) && 1 === count( $rows[0] ) ? $rows[0][0] : $rows;
};
$wish = array( 'from' => array( $old ), 'to' => $new );
$run  = static function ( array $wish ) use ( $its_own, $config ): array {
	putenv( "PRESSROOM_CONFIG=$its_own" );
	$result = Lab::script( 'rewrite.php', array(), json_encode( $wish ) );
	putenv( "PRESSROOM_CONFIG=$config" );
	return $result;
};
$sums = static function () use ( $database ): array {
	$tables = array_column( $database->query( 'SHOW TABLES' )->fetch_all(), 0 );
	return $database->query( 'CHECKSUM TABLE ' . implode( ',', $tables ) )->fetch_all();
};

foreach ( array( array(), array( 'from' => 'x', 'to' => $new ), array( 'from' => array( $old ) ), array( 'tables' => array( 'wp_nothing' ) ) + $wish, array( 'from' => array( "$old/path" ) ) + $wish, array( 'paths' => array( array( '/', '/x' ) ) ) + $wish, array( 'paths' => array( array( '/a', '/b' ), array( '/b', '/c' ) ) ) + $wish ) as $bad ) {
	$result = $run( $bad );
	Lab::claim( 'a bad wish is refused', 1 === $result['status'] && isset( $result['said']['error'] ), array( $bad, $result ) );
}

$ids = array();
foreach ( $before as $what => $value ) {
	$put( 'wp_options', array( 'option_name' => "lab $what", 'option_value' => serialize( $value ) ) );
	$put( 'wp_postmeta', array( 'post_id' => 1, 'meta_key' => $what, 'meta_value' => serialize( $value ) ) );
}
foreach ( $broken as $what => $data ) {
	$put( 'wp_postmeta', array( 'post_id' => 2, 'meta_key' => $what, 'meta_value' => $data ) );
}
foreach ( array( 'home' => $old, 'siteurl' => $old, 'cookie_domain' => 'shop.example.com', 'mail_to' => 'shop.example.com', 'admin_email' => 'me@shop.example.com', "for_$old" => 'x', "for_$new" => 'y' ) as $option => $value ) {
	$put( 'wp_options', array( 'option_name' => $option, 'option_value' => $value ) );
}
$put( 'wp_posts', array( 'ID' => 7, 'post_content' => "<a href='$old/?p=7'>grün</a>", 'post_title' => 't', 'post_excerpt' => '', 'guid' => "$old/?p=7", 'post_content_filtered' => '', 'to_ping' => '', 'pinged' => "$old/a\n$old/b" ) );
$put( 'wp_users', array( 'ID' => 3, 'user_login' => 'me', 'user_email' => 'me@shop.example.com', 'user_url' => $old, 'user_pass' => $old ) );
$put( 'wp_usermeta', array( 'user_id' => 3, 'meta_key' => 'session_tokens', 'meta_value' => serialize( array( 'ua' => $old ) ) ) );
$put( 'wp_usermeta', array( 'user_id' => 3, 'meta_key' => 'other', 'meta_value' => serialize( array( 'ua' => $old ) ) ) );
$put( 'wp_comments', array( 'comment_post_ID' => 7, 'comment_author' => 'x', 'comment_author_url' => 'http://shop.example.com/', 'comment_content' => $old ) );
$database->query( 'CREATE TABLE wp_loose (a longtext, b blob, c int, d double)' );
$put( 'wp_loose', array( 'a' => "$old/ü", 'b' => "\xFF\0$old", 'c' => null, 'd' => 0.5 ) );
$put( 'wp_loose', array( 'a' => "$old/ü", 'b' => "\xFF\0$old", 'c' => null, 'd' => 0.5 ) );
$put( 'wp_loose', array( 'a' => 's:3:"https://shop.example.com', 'b' => null, 'c' => 5, 'd' => null ) );
$database->query( "CREATE TABLE wp_pairs (a varchar(50) COLLATE utf8mb4_bin, b varbinary(40), v mediumblob, s timestamp NOT NULL DEFAULT '2001-01-01 00:00:00' ON UPDATE current_timestamp(), g varchar(60) AS (concat(a, '//shop.example.com')), PRIMARY KEY (a, b))" );
for ( $i = 0; $i < 450; ++$i ) {
	$database->execute_query( 'INSERT INTO wp_pairs (a, b, v) VALUES (?, ?, ?)', array( 'k' . ( $i % 9 ), "\xF0\0$i", serialize( "\xFF$old/$i" ) ) );
}
$database->execute_query( 'INSERT INTO wp_pairs (a, b, v) VALUES (?, ?, ?)', array( 'HTTPS://SHOP.EXAMPLE.COM/', '', 'HTTPS://SHOP.EXAMPLE.COM/' ) );
$database->query( 'CREATE TABLE wp_short (id int PRIMARY KEY, u varchar(26))' );
$put( 'wp_short', array( 'id' => 1, 'u' => "$old/a" ) );
$database->query( 'CREATE TABLE wpx_other (id int PRIMARY KEY, u text)' );
$put( 'wpx_other', array( 'id' => 1, 'u' => $old ) );

$at_first = $sums();
$result   = $run( array( 'dry_run' => true ) + $wish );
Lab::same( 'a dry run changes nothing', $at_first, $sums() );
Lab::claim( 'and tells what would change', 0 === $result['status'] && $result['said']['changed'] > 470 && true === $result['said']['dry_run'], $result );
$result = $run( array( 'tables' => array( 'wp_users' ) ) + $wish );
Lab::same( 'only the tables that are wished', array( 'wp_users' ), array_keys( $result['said']['tables'] ?? array() ) );
$result = $run( $wish );
$said   = $result['said'];
Lab::same( 'the move ends well', 0, $result['status'] );
foreach ( $after as $what => $value ) {
	Lab::claim( "in the database: $what", serialize( $value ) === $database->execute_query( 'SELECT option_value FROM wp_options WHERE option_name = ?', array( "lab $what" ) )->fetch_row()[0], $what );
	Lab::claim( "in meta data: $what", serialize( $value ) === $database->execute_query( 'SELECT meta_value FROM wp_postmeta WHERE post_id = 1 AND meta_key = ?', array( $what ) )->fetch_row()[0], $what );
}
foreach ( $broken as $what => $data ) {
	Lab::claim( "left alone in the database: $what", $data === $database->execute_query( 'SELECT meta_value FROM wp_postmeta WHERE post_id = 2 AND meta_key = ?', array( $what ) )->fetch_row()[0] );
}
$told = array_count_values( array_column( $said['broken'], 'table' ) );
Lab::same( 'what was left alone is told', array( 'wp_loose' => 1, 'wp_options' => 1, 'wp_postmeta' => count( $broken ), 'wp_short' => 1 ), $told );
Lab::claim( 'with its key, column and reason', 1 === preg_match( '/^\d+$/', (string) ( $said['broken'][3]['key']['meta_id'] ?? '' ) ) && 'meta_value' === $said['broken'][3]['column'] && '' !== $said['broken'][3]['reason'], $said['broken'] );
Lab::same( 'options', array( array( 'admin_email', 'me@shop.example.com' ), array( 'cookie_domain', 'staging.shop.example.com:8443' ), array( 'home', $new ), array( 'mail_to', 'shop.example.com' ) ), $get( "SELECT option_name, option_value FROM wp_options WHERE option_name IN ('home', 'mail_to', 'cookie_domain', 'admin_email') ORDER BY option_name" ) );
Lab::same( 'a post keeps its guid', array( array( "<a href='$new/?p=7'>grün</a>", "$old/?p=7", "$new/a\n$new/b" ) ), $get( 'SELECT post_content, guid, pinged FROM wp_posts' ) );
Lab::same( 'users', array( array( 'me@shop.example.com', $new, $old ) ), $get( 'SELECT user_email, user_url, user_pass FROM wp_users' ) );
Lab::same( 'sessions stay', array( array( serialize( array( 'ua' => $old ) ) ), array( serialize( array( 'ua' => $new ) ) ) ), $get( 'SELECT meta_value FROM wp_usermeta ORDER BY umeta_id' ) );
Lab::same( 'comments', array( array( "$new/", $new ) ), $get( 'SELECT comment_author_url, comment_content FROM wp_comments' ) );
Lab::same( 'a table without a key', array( array( "$new/ü", "\xFF\0$new", null ), array( "$new/ü", "\xFF\0$new", null ), array( 's:3:"https://shop.example.com', null, '5' ) ), $get( 'SELECT a, b, c FROM wp_loose ORDER BY c' ) );
Lab::same( 'one with a key of two columns, and bytes that are no text', '450', $get( "SELECT COUNT(*) FROM wp_pairs WHERE v = CONCAT(CAST('s:' AS BINARY), LENGTH(v) - 8, ':\"', 0xFF, '$new/', SUBSTR(b, 3), '\";')" ) );
Lab::same( 'capital letters', array( array( "$new/", "$new/" ) ), $get( 'SELECT a, v FROM wp_pairs WHERE LENGTH(b) = 0' ) );
Lab::same( 'nothing else of a row changes', '2001-01-01 00:00:00', $get( 'SELECT MAX(s) FROM wp_pairs' ) );
Lab::same( 'what would not fit stays whole', "$old/a", $get( 'SELECT u FROM wp_short' ) );
Lab::same( 'tables of others stay', $old, $get( 'SELECT u FROM wpx_other' ) );
$moved  = $sums();
$result = $run( $wish );
Lab::same( 'a second run changes nothing', array( 0, $moved ), array( $result['said']['changed'], $sums() ) );

// Killed in between: another connection holds a row of a later batch.
$database->query( 'TRUNCATE TABLE wp_posts' );
$database->query( 'TRUNCATE TABLE wp_postmeta' );
$database->begin_transaction();
for ( $i = 1; $i <= 2000; ++$i ) {
	$put( 'wp_posts', array( 'ID' => $i, 'post_content' => str_repeat( "<p>Lorem ipsum dolor sit amet $i</p>\n", 60 ) . "<a href=\"$old/$i\">", 'post_title' => "Post $i", 'post_excerpt' => '', 'guid' => "$old/?p=$i", 'post_content_filtered' => '', 'to_ping' => '', 'pinged' => '' ) );
	$put( 'wp_postmeta', array( 'post_id' => $i, 'meta_key' => '_elementor_data', 'meta_value' => json_encode( array_fill( 0, 10, array( 'url' => "$old/$i", 'text' => 'ü' ) ) ) ) );
	$put( 'wp_postmeta', array( 'post_id' => $i, 'meta_key' => '_meta', 'meta_value' => serialize( array_fill( 0, 10, array( 'url' => "$old/$i", 'size' => array( 1, 2.5 ) ) ) ) ) );
	$put( 'wp_postmeta', array( 'post_id' => $i, 'meta_key' => '_edit_lock', 'meta_value' => '1700000000:1' ) );
}
$database->commit();
$database->query( 'CREATE DATABASE IF NOT EXISTS kept' );
foreach ( array( 'wp_posts', 'wp_postmeta' ) as $table ) {
	$database->query( "CREATE OR REPLACE TABLE kept.$table AS SELECT * FROM $table" );
}
$other = $connect();
$other->select_db( 'moved' );
$other->begin_transaction();
$other->query( 'SELECT * FROM wp_posts WHERE ID = 1100 FOR UPDATE' );
$child = proc_open( array( getenv( 'LAB_PHP' ), getenv( 'LAB' ) . '/rewrite.php', getenv( 'LAB_ROOT' ) ), array( 0 => array( 'pipe', 'r' ), 1 => array( 'pipe', 'w' ) ), $pipes, null, array( 'PRESSROOM_CONFIG' => $its_own ) + getenv() );
fwrite( $pipes[0], json_encode( $wish ) );
fclose( $pipes[0] );
$done = static function () use ( $get, $new ): int {
	return (int) $get( "SELECT COUNT(*) FROM wp_posts WHERE post_content LIKE '%$new/%'" );
};
Lab::until( static function () use ( $done ) {
	return $done() >= 1000;
}, 10 );
usleep( 100000 );
proc_terminate( $child, SIGKILL );
proc_close( $child );
$other->rollback();
Lab::same( 'whole batches are done when it is killed', 1000, $done() );
$result = $run( $wish );
Lab::same( 'the next run does the rest', array( 1000, 2000, 0 ), array( $result['said']['tables']['wp_posts']['changed'], $done(), (int) $get( "SELECT COUNT(*) FROM wp_posts WHERE post_content LIKE '%//shop.example.com%' OR guid NOT LIKE '$old/%'" ) ) );
$after_kill = $sums();
foreach ( array( 'wp_posts', 'wp_postmeta' ) as $table ) {
	$database->query( "REPLACE INTO $table SELECT * FROM kept.$table" );
}
$result = $run( $wish );
Lab::same( 'and both are what an undisturbed run makes', $after_kill, $sums() );
Lab::claim( '2,000 posts with 6,000 meta values move in seconds, also on a busy machine', $result['said']['milliseconds'] < 15000, $result['said'] );
printf( "rewrite: 2,000 posts, %d rows changed in %d ms\n", $result['said']['changed'], $result['said']['milliseconds'] );

// A network.
$database->query( 'CREATE TABLE wp_blogs (blog_id bigint PRIMARY KEY, site_id bigint, domain varchar(200), path varchar(100))' );
$database->query( 'CREATE TABLE wp_site (id bigint PRIMARY KEY, domain varchar(200), path varchar(100))' );
$database->query( 'CREATE TABLE wp_sitemeta (meta_id bigint PRIMARY KEY, site_id bigint, meta_key varchar(255), meta_value longtext)' );
$database->query( 'CREATE TABLE wp_signups (signup_id bigint PRIMARY KEY, domain varchar(200), path varchar(100))' );
$database->query( 'CREATE TABLE wp_2_options LIKE wp_options' );
$database->query( 'CREATE TABLE wp_2_posts LIKE wp_posts' );
$network = static function ( array $blogs, array $wish, string $text ) use ( $database, $put, $get, $run ): array {
	foreach ( array( 'blogs', 'site', 'sitemeta', 'signups', '2_options', '2_posts', 'posts', 'postmeta' ) as $table ) {
		$database->query( "TRUNCATE TABLE wp_$table" );
	}
	foreach ( $blogs as $i => list( $domain, $path ) ) {
		$put( 'wp_blogs', array( 'blog_id' => $i + 1, 'site_id' => 1, 'domain' => $domain, 'path' => $path ) );
	}
	$put( 'wp_site', array( 'id' => 1, 'domain' => $blogs[0][0], 'path' => '/' ) );
	$put( 'wp_signups', array( 'signup_id' => 1, 'domain' => $blogs[1][0], 'path' => '/' ) );
	$put( 'wp_sitemeta', array( 'meta_id' => 1, 'site_id' => 1, 'meta_key' => 'siteurl', 'meta_value' => "https://{$blogs[0][0]}/" ) );
	$put( 'wp_sitemeta', array( 'meta_id' => 2, 'site_id' => 1, 'meta_key' => 'main_domain', 'meta_value' => $blogs[0][0] ) );
	$put( 'wp_sitemeta', array( 'meta_id' => 3, 'site_id' => 1, 'meta_key' => 'limited_email_domains', 'meta_value' => serialize( array( $blogs[0][0] ) ) ) );
	$put( 'wp_2_options', array( 'option_name' => 'home', 'option_value' => 'http://' . rtrim( implode( '', $blogs[1] ), '/' ) ) );
	$put( 'wp_2_posts', array( 'ID' => 1, 'post_content' => $text, 'guid' => $text, 'post_title' => '', 'post_excerpt' => '', 'post_content_filtered' => '', 'to_ping' => '', 'pinged' => '' ) );
	$result = $run( $wish );
	$look   = static function () use ( $get ): array {
		return array(
			'blogs'   => array_map( 'implode', $get( 'SELECT domain, path FROM wp_blogs ORDER BY blog_id' ) ),
			'site'    => $get( 'SELECT domain FROM wp_site' ),
			'signups' => $get( 'SELECT domain FROM wp_signups' ),
			'meta'    => array_column( $get( 'SELECT meta_value FROM wp_sitemeta ORDER BY meta_id' ), 0 ),
			'home'    => $get( 'SELECT option_value FROM wp_2_options' ),
			'text'    => $get( 'SELECT post_content FROM wp_2_posts' ),
			'guid'    => $get( 'SELECT guid FROM wp_2_posts' ),
		);
	};
	$state  = $look();
	$again  = $run( $wish );
	Lab::same( 'a network moves once', array( 0, $state ), array( $again['said']['changed'] ?? null, $look() ) );
	// Interrupted: the blogs moved, a text did not.
	$database->execute_query( 'UPDATE wp_2_posts SET post_content = ?', array( $text ) );
	$run( $wish );
	Lab::same( 'a text that moves after the blogs', $state['text'], $look()['text'] );
	return array( $state, $result['said'] ?? $result );
};
list( $state, $said ) = $network(
	array( array( 'shop.example.com', '/' ), array( 'x.shop.example.com', '/' ), array( 'a.b.shop.example.com', '/' ), array( 'own.test', '/' ) ),
	$wish,
	'https://x.shop.example.com/ //a.b.shop.example.com https://cdn.shop.example.com/ https://own.test/ https://shop.example.com/'
);
$below = 'staging.shop.example.com:8443';
Lab::same( 'blogs of sub-domains', array( "$below/", "x.$below/", "a.b.$below/", 'own.test/' ), $state['blogs'] );
Lab::same( 'the network and its options', array( $below, "x.$below", array( "https://$below/", $below, serialize( array( 'shop.example.com' ) ) ) ), array( $state['site'], $state['signups'], $state['meta'] ) );
Lab::same( 'texts of blogs', array( "https://x.$below", "https://x.$below/ //a.b.$below https://cdn.shop.example.com/ https://own.test/ https://$below/" ), array( $state['home'], $state['text'] ) );
Lab::claim( 'and their guids', 0 === strpos( $state['guid'], 'https://x.shop.example.com/' ), $state['guid'] );
Lab::same( 'a domain of its own is told', array( 4, 'own.test' ), array( $said['unmapped'][0]['blog'] ?? $said, $said['unmapped'][0]['domain'] ?? null ) );
list( $state ) = $network(
	array( array( 'shop.example.com', '/' ), array( 'shop.example.com', '/second/' ) ),
	array( 'to' => 'https://staging.shop.example.com' ) + $wish,
	'http:\/\/shop.example.com\/second\/'
);
Lab::same( 'blogs of directories keep them', array( array( 'staging.shop.example.com/', 'staging.shop.example.com/second/' ), 'https://staging.shop.example.com/second', 'https:\/\/staging.shop.example.com\/second\/' ), array( $state['blogs'], $state['home'], $state['text'] ) );
list( $state ) = $network(
	array( array( 'www.shop.example.com:8443', '/' ), array( 'x.shop.example.com:8443', '/' ) ),
	array( 'from' => array( 'https://www.shop.example.com:8443' ), 'to' => 'http://www.new.test' ),
	'https://x.shop.example.com:8443/ https://x.shop.example.com/ https://www.shop.example.com:8443'
);
Lab::same( 'www is no part of what blogs are below of', array( array( 'www.new.test/', 'x.new.test/' ), 'http://x.new.test/ https://x.shop.example.com/ http://www.new.test' ), array( $state['blogs'], $state['text'] ) );
list( $state ) = $network(
	array( array( 'staging.shop.example.com', '/' ), array( 'x.staging.shop.example.com', '/' ) ),
	array( 'from' => array( 'https://staging.shop.example.com' ), 'to' => 'https://shop.example.com' ),
	'https://x.staging.shop.example.com/ //staging.shop.example.com'
);
Lab::same( 'and back to the shorter host', array( array( 'shop.example.com/', 'x.shop.example.com/' ), 'https://x.shop.example.com/ //shop.example.com' ), array( $state['blogs'], $state['text'] ) );
$put( 'wp_blogs', array( 'blog_id' => 9, 'site_id' => 1, 'domain' => 'new.test', 'path' => '/' ) );
$result = $run( array( 'from' => array( 'https://shop.example.com' ), 'to' => 'https://new.test' ) );
Lab::claim( 'two blogs do not become one', 1 === $result['status'] && 'shop.example.com' === $get( 'SELECT domain FROM wp_site' ), $result );
$database->query( 'DROP DATABASE moved' );
$database->query( 'DROP DATABASE kept' );
