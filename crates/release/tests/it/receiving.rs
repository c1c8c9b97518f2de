//! A release goes from one machine's folder to another's.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use pressroom_release::releases::Releases;

use crate::{Room, build};

#[test]
fn a_release_arrives_whole_and_only_what_is_lacking_is_sent() {
    let room = Room::new();
    let (source, wordpress) = room.source();
    let (there, here) = (&room.releases, Releases::at(room.path("here")));
    let built = || build(there, &wordpress).expect("built").id;
    let first = built();
    let send = |id, most: usize| {
        let text = there.manifest(id).expect("known").text();
        let incoming = here.begin_receiving(id, &text).expect("begun");
        let lacking = incoming.lacking();
        let files = there.find(id, &lacking).expect("found");
        assert_eq!(files.len(), lacking.len());
        for (digest, path) in files.iter().take(most) {
            let bytes = fs::read(path).expect("read");
            assert!(incoming.take(digest, b"something else").is_err());
            incoming.take(digest, &bytes).expect("taken");
        }
        (incoming, lacking.len())
    };
    // Interrupted after two files: nothing is there, and those two are not asked for again.
    let (incoming, all) = send(&first, 2);
    drop(incoming);
    assert!(here.list().expect("listed").is_empty());
    let (incoming, rest) = send(&first, usize::MAX);
    assert_eq!(rest, all - 2);
    incoming.finish().expect("whole");
    assert_eq!(here.list().expect("listed"), std::slice::from_ref(&first));
    assert!(here.verify(&first).expect("verified").is_empty());

    fs::write(source.join("index.php"), "<?php // another").expect("written");
    let second = built();
    let (incoming, lacking) = send(&second, usize::MAX);
    assert_eq!(lacking, 1, "everything else is here");
    incoming.finish().expect("whole");
    assert!(here.verify(&second).expect("verified").is_empty());
    // Another manifest than the one that was asked for.
    let text = there.manifest(&first).expect("known").text();
    assert!(here.begin_receiving(&second, &text).is_err());
    // A power cut left half of a file: it is asked for again, and the release comes after all.
    let damaged = Releases::at(room.path("damaged"));
    let receive = |releases: &Releases| {
        let incoming = releases.begin_receiving(&first, &text).expect("begun");
        for (digest, path) in there.find(&first, &incoming.lacking()).expect("found") {
            incoming.take(&digest, &fs::read(path).expect("read")).expect("taken");
        }
        incoming
    };
    let incoming = receive(&damaged);
    let bytes = room.path("damaged").join(".incoming").join(first.as_str());
    let half = fs::read_dir(&bytes).expect("a folder").flatten().next().expect("a file");
    fs::write(half.path(), "").expect("written");
    assert!(incoming.finish().is_err());
    receive(&damaged).finish().expect("whole");
    assert!(damaged.verify(&first).expect("verified").is_empty());
    // What nobody comes back for goes with the strays.
    let late = SystemTime::now() + Duration::from_secs(60);
    drop(damaged.begin_receiving(&second, &there.manifest(&second).expect("known").text()));
    let left = room.path("damaged").join(".incoming").join(second.as_str());
    assert!(left.is_dir());
    damaged.remove_strays(&BTreeSet::from([first.clone()]), late).expect("removed");
    assert!(!left.exists());
    // Something is missing.
    let third = Releases::at(room.path("third"));
    let incoming = third.begin_receiving(&first, &text).expect("begun");
    assert!(incoming.finish().is_err());
    assert!(third.list().expect("listed").is_empty());
}
