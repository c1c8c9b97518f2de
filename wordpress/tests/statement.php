<?php
/** What SQL statements are taken for. @package Pressroom @license GPL-2.0-or-later */

defined( 'ABSPATH' ) || define( 'ABSPATH', getenv( 'LAB_ROOT' ) . '/' );
require_once getenv( 'LAB_ROOT' ) . '/wp-content/mu-plugins/pressroom/statement.php';
foreach ( array(
	'SELECT 1'                                             => false,
	" \n(SELECT 1) UNION (SELECT 2)"                       => false,
	'/* hi */ SELECT 1'                                    => false,
	'SHOW FULL COLUMNS FROM x'                             => false,
	"SET NAMES 'utf8'"                                     => false,
	'START TRANSACTION'                                    => false,
	'/* hi */ UPDATE x SET y = 1'                          => true,
	'INSERT INTO x VALUES (1)'                             => true,
	'REPLACE INTO x VALUES (1)'                            => true,
	'CALL anything()'                                      => true,
	'WITH a AS (SELECT 1) DELETE FROM x'                   => true,
	'delete from x'                                        => true,
) as $sql => $expected ) {
	Lab::same( "`$sql` is " . ( $expected ? 'a write' : 'a read' ), $expected, Pressroom_Statement::is_write( $sql ) );
}
foreach ( array(
	'UPDATE `wp_posts` SET a = 1'                                    => 'wp_posts',
	'INSERT IGNORE INTO `wp_options` ( `option_name` ) VALUES (1)'   => 'wp_options',
	'DELETE a, b FROM wp_options a, wp_options b WHERE 1'            => 'wp_options',
	'DELETE FROM wp_posts WHERE ID = 1'                              => 'wp_posts',
	'TRUNCATE TABLE wp_x'                                            => 'wp_x',
	'update db.wp_posts set x=1'                                     => 'wp_posts',
	'REPLACE INTO wp_posts VALUES (1)'                               => 'wp_posts',
) as $sql => $expected ) {
	Lab::same( "the table of `$sql`", $expected, Pressroom_Statement::table( $sql ) );
}
Lab::same( 'numbers of =', array( 5 ), Pressroom_Statement::numbers( 'UPDATE x SET ID = 3 WHERE `ID` = 5', 'ID' ) );
Lab::same( 'numbers of IN', array( 5, 6 ), Pressroom_Statement::numbers( "DELETE FROM x WHERE post_id IN (5, '6')", 'post_id' ) );
Lab::same( 'no number in a range', null, Pressroom_Statement::numbers( 'DELETE FROM x WHERE ID > 5', 'ID' ) );
Lab::same( 'another column is not it', null, Pressroom_Statement::numbers( 'DELETE FROM x WHERE meta_ID = 5', 'ID' ) );
Lab::same( 'the option of an update', 'a\'b', Pressroom_Statement::option( "UPDATE o SET option_value = 'x' WHERE option_name = 'a\\'b'" ) );
Lab::same( 'the option of an insert', 'abc', Pressroom_Statement::option( "INSERT INTO `o` (`option_name`, `option_value`, `autoload`) VALUES ('abc', 'x', 'yes') ON DUPLICATE KEY" ) );
Lab::same( 'a transaction begins', 'begin', Pressroom_Statement::transaction( 'START TRANSACTION' ) );
Lab::same( 'a savepoint does not end it', null, Pressroom_Statement::transaction( 'ROLLBACK TO SAVEPOINT a' ) );
