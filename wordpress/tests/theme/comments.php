<?php
if ( post_password_required() ) {
	return;
}
wp_list_comments();
comment_form();
