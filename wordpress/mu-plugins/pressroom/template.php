<?php
/**
 * Stands in for the theme's template, to know that it returned instead of ending the process. See page.php.
 *
 * It has no variables of its own: a template sees the scope it would have seen.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

include Pressroom_Page::template();
Pressroom_Page::ended( 'template' );
