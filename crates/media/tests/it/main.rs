//! Media folders of several nodes that are cut from each other, stopped and started, and meet again.

mod garage;
mod moody;
mod nodes;
mod store;

use nodes::{Node, meet};

/// Nodes that have the same files.
fn alike(files: &[(&str, &str)]) -> (Node, Node) {
    let (one, two) = (Node::new(), Node::new());
    for (path, text) in files {
        one.write(path, text);
    }
    meet(&one, &two);
    assert_eq!(one.files(), two.files());
    (one, two)
}

#[test]
fn what_was_deleted_while_nobody_looked_does_not_come_back() {
    let (one, two) = alike(&[("2026/a.jpg", "a"), ("2026/b.jpg", "b"), ("c.jpg", "c")]);
    let one = one.stop();
    std::fs::remove_file(one.path("2026/a.jpg")).expect("removed");
    // The other one replaced this meanwhile, which is newer than what is missing here.
    std::fs::remove_file(one.path("c.jpg")).expect("removed");
    two.write("c.jpg", "new");
    let one = one.start();
    meet(&two, &one);
    let expected = [("2026/b.jpg", "b"), ("c.jpg", "new")];
    assert_eq!((one.files(), two.files()), (nodes::map(&expected), nodes::map(&expected)));
    // A third node that had it, and was away all the time, loses it as well.
    let third = Node::new();
    third.write_at("2026/a.jpg", "a", 1_000_000_000);
    meet(&third, &two);
    assert_eq!(third.files(), nodes::map(&expected));
}

#[test]
fn a_ledger_whose_last_line_was_cut_off_is_good_up_to_there() {
    let (one, two) = alike(&[("a.jpg", "a"), ("b.jpg", "b")]);
    let one = one.stop();
    one.cut_journal(5);
    std::fs::remove_file(one.path("a.jpg")).expect("removed");
    let one = one.start();
    meet(&one, &two);
    assert_eq!(two.files(), nodes::map(&[("b.jpg", "b")]));
}

#[test]
fn an_empty_or_another_folder_deletes_nothing_elsewhere() {
    let (one, two) = alike(&[("a.jpg", "a"), ("b.jpg", "b")]);
    let one = one.stop();
    std::fs::remove_file(one.path("a.jpg")).expect("removed");
    std::fs::remove_file(one.path("b.jpg")).expect("removed");
    let one = one.start();
    meet(&one, &two);
    assert_eq!(one.files().len(), 2);
    let one = one.stop();
    one.make_folder_anew();
    std::fs::write(one.path("c.jpg"), "c").expect("written");
    let one = one.start();
    meet(&two, &one);
    assert_eq!((one.files().len(), two.files().len()), (3, 3));
}

#[test]
fn of_two_that_were_made_apart_the_newer_stays_and_the_other_is_kept() {
    let (one, two) = alike(&[("shop.php", "first"), ("gone.jpg", "first")]);
    one.write("shop.php", "of one");
    two.write("shop.php", "of two, newer");
    two.write("gone.jpg", "changed");
    one.delete("gone.jpg");
    meet(&one, &two);
    let expected = nodes::map(&[("shop.php", "of two, newer")]);
    assert_eq!((one.files(), two.files()), (expected.clone(), expected));
    assert_eq!(one.kept(), ["of one"]);
    assert_eq!(two.kept(), ["changed"]);
    // One after another is no conflict.
    one.write("shop.php", "again");
    meet(&one, &two);
    two.write("shop.php", "and again");
    meet(&one, &two);
    assert_eq!((one.kept().len(), two.kept().len()), (1, 1));
}

#[test]
fn a_renamed_folder_is_renamed_everywhere_also_back() {
    let (one, two) = alike(&[("old/a.jpg", "a"), ("old/deep/b.jpg", "b")]);
    let one = one.stop();
    std::fs::rename(one.path("old"), one.path("new")).expect("renamed");
    let one = one.start();
    meet(&one, &two);
    assert_eq!(two.files(), nodes::map(&[("new/a.jpg", "a"), ("new/deep/b.jpg", "b")]));
    assert!(!two.path("old").exists());
    std::fs::rename(one.path("new"), one.path("old")).expect("renamed");
    one.look();
    meet(&two, &one);
    assert_eq!(two.files(), nodes::map(&[("old/a.jpg", "a"), ("old/deep/b.jpg", "b")]));
}

#[test]
fn a_disk_that_fills_up_leaves_the_old_file_and_nothing_of_the_new_one() {
    let (one, two) = alike(&[("a.jpg", "old")]);
    one.write("a.jpg", "new and longer");
    two.fill_up_after(5);
    let failed = nodes::tell(&one, &two).expect_err("no room");
    assert_eq!(failed.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(two.files(), nodes::map(&[("a.jpg", "old")]));
    assert_eq!(std::fs::read_dir(two.path("")).expect("there").count(), 1);
    two.make_room();
    nodes::tell(&one, &two).expect("room");
    assert_eq!(two.files(), one.files());
}

#[test]
fn ten_thousand_files_are_told_and_their_deletion_is_forgotten_when_all_heard_it() {
    let one = Node::new();
    for number in 0..10_000 {
        std::fs::write(one.path(&format!("{number}.jpg")), number.to_string()).expect("written");
    }
    one.look();
    let two = Node::new();
    meet(&one, &two);
    assert_eq!(two.files().len(), 10_000);
    let two = two.stop();
    for number in 0..9_999 {
        std::fs::remove_file(two.path(&format!("{number}.jpg"))).expect("removed");
    }
    let two = two.start();
    meet(&one, &two);
    assert_eq!(one.files(), nodes::map(&[("9999.jpg", "9999")]));
    assert!(one.remembered() == 9_999 && one.forget(0) == 9_999);
    assert_eq!(one.forget(i64::MAX), 0);
    // The ledger on disk shrinks with it, by and by.
    assert_eq!(one.stop().start().remembered(), 0);
}
