<!doctype html>
<html <?php language_attributes(); ?>>
<head><meta charset="utf-8"><link rel="stylesheet" href="<?php echo esc_url(get_stylesheet_uri()); ?>"><?php wp_head(); ?></head>
<body id="plain-theme" <?php body_class(); ?>>
<h1><a href="<?php echo esc_url(home_url('/')); ?>"><?php bloginfo('name'); ?></a></h1>
<?php wp_nav_menu(['theme_location' => 'main', 'fallback_cb' => false]); ?>
<?php while (have_posts()) {
    the_post(); ?>
<article><h2><a href="<?php the_permalink(); ?>"><?php the_title(); ?></a></h2><?php the_content(); ?></article>
<?php
} ?>
<?php if (is_singular()) {
    comments_template();
} ?>
<?php wp_footer(); ?>
</body>
</html>
