<?php
/** The unattended installation. @package Pressroom @license GPL-2.0-or-later */

$wish = array( 'url' => 'https://lab.test', 'title' => "The Lab's", 'user' => 'admin', 'email' => 'a@lab.test', 'password' => "pä'ss\\word" );

$result = Lab::script( 'install.php', array(), 'nonsense' );
Lab::same( 'bad input is refused with status 1', 1, $result['status'] );
$result = Lab::script( 'install.php', array(), json_encode( array( 'url' => 'https://lab.test' ) ) );
Lab::claim( 'a missing field is named', 1 === $result['status'] && false !== strpos( $result['output'], 'title' ), $result );
$result = Lab::script( 'install.php', array(), json_encode( $wish ) );
Lab::claim( 'the first installation installs', true === ( $result['said']['installed'] ?? null ) && 1 === $result['said']['user_id'], $result );
$result = Lab::script( 'install.php', array(), json_encode( array( 'title' => 'Other', 'password' => 'other' ) + $wish ) );
Lab::claim( 'the second changes nothing', false === ( $result['said']['installed'] ?? null ) && 0 === $result['status'], $result );
$state = json_decode( Lab::wp( 'echo json_encode([get_option("blogname"),wp_check_password(wp_slash(getenv("WISH")),get_user_by("login","admin")->user_pass),get_option("permalink_structure"),get_option("blog_public"),defined("DISABLE_WP_CRON")]);', array( 'WISH' => $wish['password'] ) ), true );
Lab::same( 'title, password, addresses are as wished', array( 'The Lab&#039;s', true, '/%postname%/', '1', false ), $state );
Lab::wp( 'switch_theme("lab");' );
