<?php
/**
 * Installs (where needed) and fills a WordPress for the benchmarks, the same for every peer: 200 posts of real length with
 * comments, terms and pictures, six pages and a menu. Run it as the owner of the files: `php seed.php TREE HOST`.
 *
 * The words come from the licence texts that every Debian system carries, chosen by a generator with a fixed seed, so two
 * runs give the same text. A second run changes nothing.
 */

[, $tree, $host] = $argv;
$_SERVER += ['HTTP_HOST' => $host, 'SERVER_NAME' => $host, 'REQUEST_URI' => '/', 'REQUEST_METHOD' => 'GET', 'SERVER_PROTOCOL' => 'HTTP/1.1'];
if (getenv('PRESSROOM_CONFIG') === false) {
    define('WP_INSTALLING', true);
}
define('WP_IMPORTING', true);
require $tree . '/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
require_once ABSPATH . 'wp-admin/includes/image.php';
add_filter('pre_wp_mail', '__return_true');
if (!is_blog_installed()) {
    wp_install('Bench', 'admin', 'admin@example.org', true, '', bin2hex(random_bytes(12)));
}
if (get_option('bench_seeded')) {
    echo "already seeded\n";
    exit(0);
}

/** Sentences and their selection. */
final class Words
{
    /** @var list<string> */
    private array $sentences = [];

    public function __construct()
    {
        foreach (['GPL-2', 'GPL-3', 'LGPL-2.1', 'LGPL-3', 'Apache-2.0', 'MPL-1.1', 'MPL-2.0', 'GFDL-1.3', 'Artistic'] as $licence) {
            $text = preg_replace('/[^\x20-\x7e]+/', ' ', (string) file_get_contents("/usr/share/common-licenses/$licence"));
            $text = preg_replace(['/[<>"*=_-]{2,}/', '/\s+/'], ' ', $text);
            foreach (preg_split('/(?<=[.;:])\s/', $text) as $sentence) {
                if (strlen($sentence) > 50 && strlen($sentence) < 300) {
                    $this->sentences[] = esc_html(trim($sentence));
                }
            }
        }
    }

    public function sentences(int $count): string
    {
        $chosen = [];
        while ($count-- > 0) {
            $chosen[] = $this->sentences[mt_rand(0, count($this->sentences) - 1)];
        }
        return implode(' ', $chosen);
    }

    public function title(): string
    {
        $words = preg_split('/[^A-Za-z]+/', $this->sentences(1), -1, PREG_SPLIT_NO_EMPTY);
        return ucfirst(strtolower(implode(' ', array_slice($words, 0, mt_rand(4, 7)))));
    }
}

function block(string $name, string $html): string
{
    return "<!-- wp:$name -->\n$html\n<!-- /wp:$name -->";
}

function article(Words $words): string
{
    $blocks = [];
    for ($left = mt_rand(6, 13); $left > 0; $left--) {
        $blocks[] = block('paragraph', '<p>' . $words->sentences(mt_rand(2, 5)) . '</p>');
        match (mt_rand(0, 7)) {
            0, 1 => $blocks[] = block('heading', '<h2>' . $words->title() . '</h2>'),
            2 => $blocks[] = block('list', '<ul><li>' . $words->sentences(1) . '</li><li>' . $words->sentences(1) . '</li></ul>'),
            default => null,
        };
    }
    return implode("\n\n", $blocks);
}

/** A picture of coloured discs, with all the sizes that the theme asks for. */
function picture(int $number): int
{
    $image = imagecreatetruecolor(1200, 800);
    for ($disc = 0; $disc < 400; $disc++) {
        $colour = imagecolorallocate($image, mt_rand(0, 255), mt_rand(0, 255), mt_rand(0, 255));
        imagefilledellipse($image, mt_rand(0, 1200), mt_rand(0, 800), $size = mt_rand(8, 140), $size, $colour);
    }
    $folder = wp_upload_dir('2026/01');
    wp_mkdir_p($folder['path']);
    $file = "{$folder['path']}/picture-$number.jpg";
    imagejpeg($image, $file, 75);
    $id = wp_insert_attachment(['post_mime_type' => 'image/jpeg', 'post_title' => "Picture $number", 'post_status' => 'inherit'], $file);
    wp_update_attachment_metadata($id, wp_generate_attachment_metadata($id, $file));
    return $id;
}

mt_srand(20260314);
$words = new Words();
switch_theme('twentytwentyone');
wp_defer_term_counting(true);
wp_defer_comment_counting(true);
$categories = array_map(
    fn (string $name): int => wp_insert_term($name, 'category')['term_id'],
    ['News', 'Machines', 'Letters', 'Travel', 'Food', 'Music', 'Books', 'Science', 'Sport', 'Garden'],
);
$pictures = array_map('picture', range(1, 10));
$latest = strtotime('2026-01-31 12:00:00 UTC');
for ($number = 0; $number < 200; $number++) {
    $date = gmdate('Y-m-d H:i:s', $latest - $number * 86400);
    $id = wp_insert_post([
        'post_title' => $words->title(), 'post_name' => "article-$number", 'post_content' => article($words),
        'post_status' => 'publish', 'post_author' => 1, 'post_date' => $date, 'post_date_gmt' => $date,
        'post_category' => [$categories[mt_rand(0, 9)], $categories[mt_rand(0, 9)]],
        'tags_input' => ['tag ' . mt_rand(1, 30), 'tag ' . mt_rand(1, 30), 'tag ' . mt_rand(1, 30)],
    ]);
    if ($number % 2 === 0) {
        set_post_thumbnail($id, $pictures[$number / 2 % 10]);
    }
    for ($comment = mt_rand(0, 7); $comment > 0; $comment--) {
        wp_insert_comment([
            'comment_post_ID' => $id, 'comment_author' => "Reader $comment", 'comment_author_email' => "reader$comment@example.org",
            'comment_content' => $words->sentences(2), 'comment_approved' => 1, 'comment_date' => $date, 'comment_date_gmt' => $date,
        ]);
    }
}
$menu = wp_create_nav_menu('Main');
foreach (['About', 'People', 'Contact', 'Projects', 'Imprint', 'Privacy'] as $title) {
    $page = wp_insert_post(['post_type' => 'page', 'post_title' => $title, 'post_content' => article($words), 'post_status' => 'publish', 'post_author' => 1]);
    wp_update_nav_menu_item($menu, 0, ['menu-item-object' => 'page', 'menu-item-object-id' => $page, 'menu-item-type' => 'post_type', 'menu-item-status' => 'publish']);
}
foreach (array_slice($categories, 0, 4) as $category) {
    wp_update_nav_menu_item($menu, 0, ['menu-item-object' => 'category', 'menu-item-object-id' => $category, 'menu-item-type' => 'taxonomy', 'menu-item-status' => 'publish']);
}
set_theme_mod('nav_menu_locations', ['primary' => $menu, 'footer' => $menu]);
set_theme_mod('display_excerpt_or_full_post', 'full');
update_option('posts_per_page', 6);
update_option('permalink_structure', '/%year%/%monthnum%/%postname%/');
wp_defer_term_counting(false);
wp_defer_comment_counting(false);
flush_rewrite_rules(false);
update_option('bench_seeded', 1);
echo "seeded 200 posts\n";
