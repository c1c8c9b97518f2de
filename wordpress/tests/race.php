<?php
/** Many processes change options at once; the cache agrees with the database. @package Pressroom @license GPL-2.0-or-later */

$rounds  = 4;
$writers = 6;
$code    = <<<'CODE'
$n = (int) getenv("N"); $until = microtime(true) + 0.8; $i = 0;
while (microtime(true) < $until) {
	++$i;
	if ($n < 3) {
		update_option("race_own_$n", "$n $i");
		update_option("race_shared", "$n $i");
		update_option("race_manual", "$n $i", false);
		if ($i % 5 === 0) { delete_option("race_come_and_go"); add_option("race_come_and_go", "$n $i"); }
	} elseif ($n === 3) {
		$wpdb->query("START TRANSACTION"); update_option("race_shared", "$n $i"); update_option("race_own_3", "$n $i"); $wpdb->query($i % 2 ? "COMMIT" : "ROLLBACK"); $wpdb->query("SELECT 1");
	} else {
		$wp_object_cache->close(); wp_cache_init();
		wp_cache_add_non_persistent_groups(array("counts", "plugins"));
		foreach (array("race_own_0", "race_own_1", "race_own_2", "race_own_3", "race_shared", "race_manual", "race_come_and_go") as $o) get_option($o);
		$wp_object_cache->close();
	}
}
echo $i;
CODE;
$work = 0;
$bad  = array();
for ( $round = 0; $round < $rounds; ++$round ) {
	$children = array();
	for ( $n = 0; $n < $writers; ++$n ) {
		$children[] = Lab::start( $code, array( 'N' => (string) $n ) );
	}
	foreach ( $children as $child ) {
		$work += (int) Lab::finish( $child );
	}
	// Twice: what the first reader fills, the second believes.
	foreach ( array( 1, 2 ) as $reader ) {
		$disagreement = Lab::wp( <<<'CODE'
			$bad = array(); $stored = array();
			foreach ($wpdb->get_results("SELECT option_name, option_value, autoload FROM $wpdb->options") as $row) {
				$stored[$row->option_name] = $row;
				if (strpos($row->option_name, "race_") === 0 && (string) get_option($row->option_name) !== $row->option_value) $bad[] = array($row->option_name, get_option($row->option_name), $row->option_value);
			}
			foreach (wp_load_alloptions() as $name => $value) {
				if (strpos($name, "_transient") === false && (!isset($stored[$name]) || $stored[$name]->option_value !== $value)) $bad[] = array("alloptions", $name, $value);
			}
			foreach ((array) wp_cache_get("notoptions", "options") as $name => $x) if (isset($stored[$name])) $bad[] = array("notoptions", $name);
			if (count($stored) < 50) $bad[] = "no options";
			echo json_encode($bad);
		CODE );
		if ( '[]' !== $disagreement ) {
			$bad[] = "round $round reader $reader: $disagreement";
		}
	}
}
Lab::claim( "after $work rounds of work by $writers processes, every option in the cache is the one in the database", array() === $bad, $bad );
Lab::claim( 'there was a race to be had', $work > 200, $work );

// The race itself, step by step: two writers of different options, and a reader in between.
$steps = Lab::wp( <<<'CODE'
	update_option("step_a", "0"); update_option("step_b", "0"); wp_cache_close();
	$cache = static function () { $c = new WP_Object_Cache(); return $c; };
	$a = $cache(); $b = $cache();
	$a->before_query("UPDATE"); $b->before_query("UPDATE");
	$all_a = (array) $a->get("alloptions", "options", true);
	$all_b = (array) $b->get("alloptions", "options", true);
	$wpdb->query("UPDATE $wpdb->options SET option_value='1' WHERE option_name IN ('step_a', 'step_b')");
	$all_a["step_a"] = "1"; $a->set("alloptions", $all_a, "options");
	$all_b["step_b"] = "1"; $b->set("alloptions", $all_b, "options");
	$a->close(); $b->close();
	$c = $cache(); $GLOBALS["wp_object_cache"] = $c;
	echo get_option("step_a"), get_option("step_b");
CODE );
Lab::same( 'two writers of alloptions do not undo each other', '11', $steps );
