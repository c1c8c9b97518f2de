<?php
/**
 * Plugin Name: Pressroom
 * Description: Tells the edge which pages may be stored, and what has changed. Part of the platform; it cannot be switched off.
 * Author: Pressroom
 * License: GPL-2.0-or-later
 *
 * One concept a file, in `pressroom/`. The vocabulary of tags and purges is in `wordpress/README.md`.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

defined( 'ABSPATH' ) || exit;

require_once __DIR__ . '/pressroom/edge.php';
require_once __DIR__ . '/pressroom/ready.php';
require_once __DIR__ . '/pressroom/cron.php';
require_once __DIR__ . '/pressroom/schedule.php';
require_once __DIR__ . '/pressroom/environment.php';
require_once __DIR__ . '/pressroom/network.php';
require_once __DIR__ . '/pressroom/files.php';
require_once __DIR__ . '/pressroom/updates.php';
require_once __DIR__ . '/pressroom/statement.php';
require_once __DIR__ . '/pressroom/purge.php';
require_once __DIR__ . '/pressroom/changes.php';
require_once __DIR__ . '/pressroom/options.php';
require_once __DIR__ . '/pressroom/direct.php';
require_once __DIR__ . '/pressroom/tags.php';
require_once __DIR__ . '/pressroom/page.php';
require_once __DIR__ . '/pressroom/end.php';
require_once __DIR__ . '/pressroom/author.php';
require_once __DIR__ . '/pressroom/publish.php';
require_once __DIR__ . '/pressroom/writes.php';

Pressroom_Ready::answer_if_asked();
Pressroom_Cron::leave_to_the_scheduler();
Pressroom_Schedule::keep_whole();
Pressroom_Environment::watch();
Pressroom_Network::watch();
Pressroom_Files::watch();
Pressroom_Updates::watch();
Pressroom_Purge::catch_up();
Pressroom_Direct::watch();
Pressroom_Changes::watch();
Pressroom_Options::watch();
if ( Pressroom_Edge::is_canonical() ) {
	Pressroom_Tags::watch();
	Pressroom_Page::watch();
}
Pressroom_End::watch();
Pressroom_Writes::watch();
// Last: it may end the request, and the last word is said then.
Pressroom_Author::watch();
