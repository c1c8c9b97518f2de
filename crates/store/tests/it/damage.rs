//! Files that are held, too new or damaged.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use pressroom_runtime::shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_store::Store;
use pressroom_store::embedded::EmbeddedStore;
use pressroom_store::embedded::open::OpenError;
use pressroom_store::key::Prefix;

use crate::{Opened, put};

async fn filled(path: &Path) {
    let opened = Opened::at(path).await;
    for n in 0..200 {
        put(&opened.store, &format!("a/{n}"), &"some words ".repeat(n)).await;
    }
    opened.close().await;
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).expect("the file");
    file.seek(SeekFrom::Start(at)).expect("a place");
    file.write_all(bytes).expect("written");
}

#[tokio::test]
async fn a_store_in_use_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.redb");
    let opened = Opened::at(&path).await;
    let second = Opened::try_at(&path).await.err().expect("it is locked");
    assert!(matches!(second, OpenError::Locked { .. }), "{second}");
    assert!(second.to_string().contains("open in another process"));
    opened.close().await;
    Opened::at(&path).await.close().await;
}

#[tokio::test]
async fn a_newer_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.redb");
    filled(&path).await;
    let database = redb::Database::open(&path).expect("the file");
    let write = database.begin_write().expect("a transaction");
    let about = redb::TableDefinition::<&str, u64>::new("about");
    write.open_table(about).expect("a table").insert("version", 99).expect("a stamp");
    write.commit().expect("written");
    drop(database);
    let (_trigger, stop) = shutdown::pair();
    let error = EmbeddedStore::open_or_replace(&path, &Group::new("test", stop))
        .await
        .expect_err("it is newer");
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
    assert!(path.exists());
}

/// Damages a filled file by `harm`; the store must notice, keep the file and start empty.
async fn replaced_after(harm: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.redb");
    filled(&path).await;
    harm(&path);
    let bytes = fs::read(&path).expect("the file");
    let found = Opened::try_at(&path).await.err().expect("it is damaged");
    assert!(matches!(found, OpenError::Damaged { .. }), "{found}");

    let (_trigger, stop) = shutdown::pair();
    let tasks = Group::new("test", stop);
    let (store, replaced) =
        EmbeddedStore::open_or_replace(&path, &tasks).await.expect("it starts empty");
    let replaced = replaced.expect("it was replaced");
    assert!(!replaced.found.is_empty());
    let kept = replaced.kept.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(kept.starts_with("state.redb.corrupt-"), "{kept}");
    assert_eq!(fs::read(&replaced.kept).expect("it is kept").len(), bytes.len());
    assert!(store.list(&Prefix::all()).await.expect("a listing").entries.is_empty());
    put(&store, "new", "life").await;
}

#[tokio::test]
async fn a_file_of_something_else_is_kept_and_replaced() {
    replaced_after(|path| {
        fs::write(path, b"this is not a store, but somebody's words\n".repeat(500))
            .expect("written");
    })
    .await;
}

#[tokio::test]
async fn a_file_with_a_bad_head_is_kept_and_replaced() {
    replaced_after(|path| overwrite(path, 0, &[0xAA; 512])).await;
}

#[tokio::test]
async fn a_file_cut_off_is_kept_and_replaced() {
    replaced_after(|path| {
        let file = fs::OpenOptions::new().write(true).open(path).expect("the file");
        file.set_len(file.metadata().expect("its size").len() / 3).expect("cut");
    })
    .await;
}

#[tokio::test]
async fn damaged_pages_are_found_although_the_head_is_whole() {
    replaced_after(|path| {
        let length = fs::metadata(path).expect("its size").len();
        for at in (4096..length).step_by(1000) {
            overwrite(path, at, &[0x5A; 8]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_not_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let error =
        Opened::try_at(&folder.path().join("none/state.redb")).await.err().expect("no folder");
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}
