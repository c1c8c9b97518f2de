<!DOCTYPE html>
<html <?php language_attributes(); ?>>
<head><?php wp_head(); ?></head>
<body <?php body_class(); ?>>
<h1><?php bloginfo( 'name' ); ?></h1>
<?php
wp_nav_menu( array( 'theme_location' => 'primary', 'fallback_cb' => 'wp_page_menu' ) );
while ( have_posts() ) {
	the_post();
	printf( '<article id="%d"><h2><a href="%s">', get_the_ID(), esc_url( get_permalink() ) );
	the_title();
	echo '</a></h2>';
	the_post_thumbnail();
	the_content();
	the_category( ', ' );
	the_tags();
	the_author();
	echo '</article>';
	if ( is_singular() ) {
		comments_template( '/comments.php' );
	}
}
the_posts_pagination();
dynamic_sidebar( 'side' );
wp_footer();
?>
</body></html>
