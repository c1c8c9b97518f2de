<?php
register_nav_menus(['main' => 'Main']);
add_theme_support('title-tag');
