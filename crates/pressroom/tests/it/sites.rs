//! Sites come and go beside others that are being visited.

use std::time::Duration;

use crate::house::{House, wait_until};

#[test]
fn sites_come_and_go_and_the_edge_stays() {
    let house = House::empty();
    house.configure("[[site]]\nname = \"blog\"");
    house.up();
    let edge = house.pid("/edge/pid");
    let mut reader = house.visitor("blog");
    hit(&mut reader);

    for title in ["First shop", "Second shop"] {
        house.must(&["site", "add", "shop", "--title", title, "--yes"]);
        assert_eq!(house.pid("/edge/pid"), edge, "`site add` replaces the edge");
        let mut customer = house.visitor("shop");
        let page = customer.get("/");
        assert!(page.body.contains(title), "a page of the site that had this name: {}", page.body);
        // Stored: what its PHP says is heard, on the socket that it was given.
        hit(&mut customer);
        assert_eq!(reader.get("/").cache(), "hit", "the neighbour's pages are left alone");

        // What it purges is its own.
        house.php("shop", "update_option('blogname', 'Renamed');");
        assert_ne!(customer.get("/").cache(), "hit", "its own page is stale");
        assert_eq!(reader.get("/").cache(), "hit", "the neighbour's is not");
        wait_until("the new name is seen", Duration::from_secs(5), || {
            customer.get("/").body.contains("Renamed")
        });

        house.must(&["site", "remove", "shop", "--yes"]);
        assert_eq!(house.pid("/edge/pid"), edge, "`site remove` replaces the edge");
        assert_eq!(customer.get("/").status, 421, "nobody answers for a site that is gone");
    }
    assert_eq!(reader.get("/").cache(), "hit");
}

fn hit(visitor: &mut crate::visitor::Visitor) {
    wait_until("the front page is stored", Duration::from_secs(10), || {
        visitor.get("/").cache() == "hit"
    });
}
