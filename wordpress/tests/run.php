<?php
echo shell_exec( 'echo ' . escapeshellarg( json_encode( array( 'url' => 'https://lab.test', 'title' => 'Lab', 'user' => 'admin', 'email' => 'a@lab.test', 'password' => "se'cret\\x" ) ) ) . " | php " . getenv('LAB') . '/install.php ' . getenv('LAB_ROOT') . ' 2>&1' );
echo shell_exec( 'echo ' . escapeshellarg( json_encode( array( 'url' => 'https://lab.test', 'title' => 'Lab', 'user' => 'admin', 'email' => 'a@lab.test', 'password' => 'secret' ) ) ) . " | php " . getenv('LAB') . '/install.php ' . getenv('LAB_ROOT') . ' 2>&1' );
echo shell_exec( "php " . getenv('LAB') . '/cron.php ' . getenv('LAB_ROOT') . ' --due 2>&1' );
echo shell_exec( "php " . getenv('LAB') . '/cron.php ' . getenv('LAB_ROOT') . ' --run 2>&1' );
echo shell_exec( 'cut -c1-300 '.getenv('LAB').'/edge.log; tail -3 '.getenv('LAB').'/*.log');
