<?php
/**
 * Builds a phar that begins as wp-cli does: it evaluates wp-config.php without its last line, then loads WordPress. Part of
 * Pressroom's own tests: `php -d phar.readonly=0 wp.php FILE`.
 */

$main = <<<'MAIN'
<?php
$arguments = array_slice($argv, 1);
$path = '';
foreach ($arguments as $at => $word) {
    if (0 === strpos($word, '--path=')) {
        $path = substr($word, 7);
        unset($arguments[$at]);
    }
}
$config = file_get_contents("$path/wp-config.php");
$config = preg_replace('/^\s*require.*wp-settings\.php.*$/m', '', $config);
$config = str_replace('__DIR__', var_export($path, true), $config);
eval('?>' . $config);
require ABSPATH . 'wp-settings.php';
$arguments = array_values($arguments);
switch (implode(' ', array_slice($arguments, 0, 2))) {
    case 'option get':
        echo get_option($arguments[2]), "\n";
        exit(0);
    case 'eval code':
        eval(stream_get_contents(STDIN));
}
fwrite(STDERR, "Error: no such command\n");
exit(1);
MAIN;

@unlink($argv[1]);
$phar = new Phar($argv[1], 0, 'wp-cli.phar');
$phar['main.php'] = $main;
$phar->setStub("#!/usr/bin/env php\n<?php\nPhar::mapPhar('wp-cli.phar');\ninclude 'phar://wp-cli.phar/main.php';\n__HALT_COMPILER(); ?>");
