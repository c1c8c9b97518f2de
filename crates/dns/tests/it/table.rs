//! The table of cases: records as SkyDNS has them, written by etcd's own tool alone, and what `dig` is told.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::dig::Server;
use crate::etcd::{Etcd, follow};

/// Key below `/skydns`, value.
const RECORDS: &[(&str, &str)] = &[
    // A service in two regions, one of them with weights, and a name as a host.
    (
        "local/pressroom/east/production/rails/1",
        r#"{"host":"10.0.1.1","port":8080,"weight":20,"ttl":60}"#,
    ),
    (
        "local/pressroom/east/production/rails/2",
        r#"{"host":"10.0.1.2","port":8080,"weight":60,"ttl":40}"#,
    ),
    (
        "local/pressroom/east/staging/rails/1",
        r#"{"host":"10.0.1.3","port":8080,"priority":20,"ttl":60}"#,
    ),
    ("local/pressroom/west/production/rails/1", r#"{"host":"2001:db8::1","port":9000,"ttl":60}"#),
    ("local/pressroom/West/alias", r#"{"host":"1.rails.production.east.pressroom.local"}"#),
    // Aliases: a chain, circles, an end outside, an end that is not there.
    ("local/pressroom/chain/a", r#"{"host":"b.chain.pressroom.local","ttl":60}"#),
    ("local/pressroom/chain/b", r#"{"host":"c.chain.pressroom.local","ttl":50}"#),
    ("local/pressroom/chain/c", r#"{"host":"10.0.2.1","port":53,"ttl":40}"#),
    ("local/pressroom/circle/a", r#"{"host":"b.circle.pressroom.local"}"#),
    ("local/pressroom/circle/b", r#"{"host":"a.circle.pressroom.local"}"#),
    ("local/pressroom/circle/self", r#"{"host":"self.circle.pressroom.local"}"#),
    ("local/pressroom/outside", r#"{"host":"db.example.com","port":3306,"ttl":30}"#),
    ("local/pressroom/nowhere", r#"{"host":"gone.pressroom.local"}"#),
    // Several names as hosts, and a name beside an address.
    ("local/pressroom/both/1", r#"{"host":"c.chain.pressroom.local","ttl":60}"#),
    ("local/pressroom/both/2", r#"{"host":"1.rails.production.east.pressroom.local","ttl":60}"#),
    ("local/pressroom/both/3", r#"{"host":"10.0.2.9","ttl":60}"#),
    // Text, mail, groups, stripped targets, a name server.
    ("local/pressroom/text/1", r#"{"host":"10.0.3.1","text":"hello world"}"#),
    ("local/pressroom/text/2", r#"{"text":"alone"}"#),
    ("local/pressroom/mail/1", r#"{"host":"10.0.4.1","mail":true,"priority":5,"ttl":60}"#),
    ("local/pressroom/mail/2", r#"{"host":"mx.example.com","mail":true,"ttl":60}"#),
    ("local/pressroom/mail/web", r#"{"host":"10.0.4.3"}"#),
    ("local/pressroom/group/a", r#"{"host":"10.0.5.1","group":"g1"}"#),
    ("local/pressroom/group/sub/b", r#"{"host":"10.0.5.2","group":"g1"}"#),
    ("local/pressroom/group/sub/c", r#"{"host":"10.0.5.3","group":"g2"}"#),
    ("local/pressroom/group/sub/d", r#"{"host":"10.0.5.4"}"#),
    ("local/pressroom/strip/1", r#"{"host":"10.0.6.1","port":80,"targetstrip":1}"#),
    ("local/pressroom/dns/ns/n1", r#"{"host":"10.0.0.53","ttl":60}"#),
    // What others wrote: another domain, and a reverse tree.
    ("local/elastisys/wordpress/h1", r#"{"host":"10.1.0.1","port":80,"ttl":60}"#),
    ("arpa/in-addr/10/0/1/1", r#"{"host":"rails.pressroom.local","ttl":60}"#),
    // Twice the same is told once.
    ("local/pressroom/twice/1", r#"{"host":"10.0.7.1","port":80}"#),
    ("local/pressroom/twice/2", r#"{"host":"10.0.7.1","port":80}"#),
];

/// Words for `dig`; status; answers, and with `+` additionals, in any order. `…` stands for a time to live.
const CASES: &[(&str, &str, &[&str])] = &[
    // Everything below a name; one set has one time to live.
    (
        "rails.production.east.pressroom.local A",
        "NOERROR",
        &[
            "rails.production.east.pressroom.local. 40 IN A 10.0.1.1",
            "rails.production.east.pressroom.local. 40 IN A 10.0.1.2",
        ],
    ),
    (
        "1.rails.production.east.pressroom.local A",
        "NOERROR",
        &["1.rails.production.east.pressroom.local. 60 IN A 10.0.1.1"],
    ),
    (
        "east.pressroom.local A",
        "NOERROR",
        &[
            "east.pressroom.local. 40 IN A 10.0.1.1",
            "east.pressroom.local. 40 IN A 10.0.1.2",
            "east.pressroom.local. 40 IN A 10.0.1.3",
        ],
    ),
    // Labels that stand for all.
    (
        "rails.*.east.pressroom.local A",
        "NOERROR",
        &[
            "rails.*.east.pressroom.local. 40 IN A 10.0.1.1",
            "rails.*.east.pressroom.local. 40 IN A 10.0.1.2",
            "rails.*.east.pressroom.local. 40 IN A 10.0.1.3",
        ],
    ),
    (
        "1.rails.any.any.pressroom.local AAAA",
        "NOERROR",
        &["1.rails.any.any.pressroom.local. 60 IN AAAA 2001:db8::1"],
    ),
    ("1.sinatra.*.east.pressroom.local A", "NXDOMAIN", &[]),
    // Small and capital letters are the same, in questions and in keys; the question's own come back.
    (
        "1.Rails.PRODUCTION.east.pressRoom.local A",
        "NOERROR",
        &["1.Rails.PRODUCTION.east.pressRoom.local. 60 IN A 10.0.1.1"],
    ),
    // There is the name, but nothing of that type: no error. There is no such name: an error.
    ("1.rails.production.east.pressroom.local AAAA", "NOERROR", &[]),
    ("1.rails.production.east.pressroom.local MX", "NOERROR", &[]),
    ("1.rails.production.east.pressroom.local CAA", "NOERROR", &[]),
    ("production.east.pressroom.local TXT", "NOERROR", &[]),
    ("pressroom.local AAAA +norec", "NOERROR", &["pressroom.local. 60 IN AAAA 2001:db8::1"]),
    ("sinatra.pressroom.local A", "NXDOMAIN", &[]),
    ("0.1.rails.production.east.pressroom.local A", "NXDOMAIN", &[]),
    // SRV: a part of a hundred of those of the same priority; targets are the records' own names, with their addresses.
    (
        "rails.production.east.pressroom.local SRV",
        "NOERROR",
        &[
            "rails.production.east.pressroom.local. 40 IN SRV 10 25 8080 1.rails.production.east.pressroom.local.",
            "rails.production.east.pressroom.local. 40 IN SRV 10 75 8080 2.rails.production.east.pressroom.local.",
            "+1.rails.production.east.pressroom.local. 60 IN A 10.0.1.1",
            "+2.rails.production.east.pressroom.local. 40 IN A 10.0.1.2",
        ],
    ),
    (
        "rails.staging.east.pressroom.local SRV",
        "NOERROR",
        &[
            "rails.staging.east.pressroom.local. 60 IN SRV 20 100 8080 1.rails.staging.east.pressroom.local.",
            "+1.rails.staging.east.pressroom.local. 60 IN A 10.0.1.3",
        ],
    ),
    (
        "west.pressroom.local SRV",
        "NOERROR",
        &[
            "west.pressroom.local. 60 IN SRV 10 50 0 1.rails.production.east.pressroom.local.",
            "west.pressroom.local. 60 IN SRV 10 50 9000 1.rails.production.west.pressroom.local.",
            "+1.rails.production.east.pressroom.local. 60 IN A 10.0.1.1",
            "+1.rails.production.west.pressroom.local. 60 IN AAAA 2001:db8::1",
        ],
    ),
    (
        "outside.pressroom.local SRV",
        "NOERROR",
        &["outside.pressroom.local. 30 IN SRV 10 100 3306 db.example.com."],
    ),
    (
        "strip.pressroom.local SRV",
        "NOERROR",
        &[
            "strip.pressroom.local. 300 IN SRV 10 100 80 strip.pressroom.local.",
            "+strip.pressroom.local. 300 IN A 10.0.6.1",
        ],
    ),
    (
        "a.chain.pressroom.local SRV",
        "NOERROR",
        &[
            "a.chain.pressroom.local. 60 IN SRV 10 100 0 b.chain.pressroom.local.",
            "+b.chain.pressroom.local. 50 IN CNAME c.chain.pressroom.local.",
            "+c.chain.pressroom.local. 40 IN A 10.0.2.1",
        ],
    ),
    // Aliases.
    (
        "a.chain.pressroom.local A",
        "NOERROR",
        &[
            "a.chain.pressroom.local. 60 IN CNAME b.chain.pressroom.local.",
            "b.chain.pressroom.local. 50 IN CNAME c.chain.pressroom.local.",
            "c.chain.pressroom.local. 40 IN A 10.0.2.1",
        ],
    ),
    (
        "a.chain.pressroom.local CNAME",
        "NOERROR",
        &["a.chain.pressroom.local. 60 IN CNAME b.chain.pressroom.local."],
    ),
    ("a.circle.pressroom.local A", "NOERROR", &[]),
    ("self.circle.pressroom.local A", "NOERROR", &[]),
    ("circle.pressroom.local A", "NOERROR", &[]),
    ("nowhere.pressroom.local A", "NOERROR", &[]),
    (
        "outside.pressroom.local A",
        "NOERROR",
        &["outside.pressroom.local. 30 IN CNAME db.example.com."],
    ),
    (
        "both.pressroom.local A",
        "NOERROR",
        &[
            "both.pressroom.local. 40 IN A 10.0.1.1",
            "both.pressroom.local. 40 IN A 10.0.2.1",
            "both.pressroom.local. 40 IN A 10.0.2.9",
        ],
    ),
    ("both.pressroom.local CNAME", "NOERROR", &[]),
    // Text and mail.
    (
        "text.pressroom.local TXT",
        "NOERROR",
        &[
            "text.pressroom.local. 300 IN TXT \"alone\"",
            "text.pressroom.local. 300 IN TXT \"hello world\"",
        ],
    ),
    ("2.text.pressroom.local A", "NOERROR", &[]),
    (
        "mail.pressroom.local MX",
        "NOERROR",
        &[
            "mail.pressroom.local. 60 IN MX 5 1.mail.pressroom.local.",
            "mail.pressroom.local. 60 IN MX 10 mx.example.com.",
            "+1.mail.pressroom.local. 60 IN A 10.0.4.1",
        ],
    ),
    // Groups.
    (
        "group.pressroom.local A",
        "NOERROR",
        &[
            "group.pressroom.local. 300 IN A 10.0.5.1",
            "group.pressroom.local. 300 IN A 10.0.5.2",
            "group.pressroom.local. 300 IN A 10.0.5.4",
        ],
    ),
    (
        "sub.group.pressroom.local A",
        "NOERROR",
        &[
            "sub.group.pressroom.local. 300 IN A 10.0.5.2",
            "sub.group.pressroom.local. 300 IN A 10.0.5.3",
            "sub.group.pressroom.local. 300 IN A 10.0.5.4",
        ],
    ),
    // The zone itself.
    (
        "pressroom.local NS",
        "NOERROR",
        &[
            "pressroom.local. 60 IN NS n1.ns.dns.pressroom.local.",
            "+n1.ns.dns.pressroom.local. 60 IN A 10.0.0.53",
        ],
    ),
    (
        "pressroom.local SOA",
        "NOERROR",
        &[
            "pressroom.local. 5 IN SOA ns.dns.pressroom.local. hostmaster.pressroom.local. … 7200 1800 86400 5",
        ],
    ),
    ("east.pressroom.local SOA", "NOERROR", &[]),
    ("east.pressroom.local NS", "NOERROR", &[]),
    ("ns.dns.pressroom.local A", "NOERROR", &["ns.dns.pressroom.local. 60 IN A 10.0.0.53"]),
    // Other domains and the reverse tree.
    (
        "wordpress.elastisys.local SRV",
        "NOERROR",
        &[
            "wordpress.elastisys.local. 60 IN SRV 10 100 80 h1.wordpress.elastisys.local.",
            "+h1.wordpress.elastisys.local. 60 IN A 10.1.0.1",
        ],
    ),
    ("mysql.elastisys.local A", "NXDOMAIN", &[]),
    ("-x 10.0.1.1", "NOERROR", &["1.1.0.10.in-addr.arpa. 60 IN PTR rails.pressroom.local."]),
    ("1.0.10.in-addr.arpa PTR", "NOERROR", &[]),
    ("-x 10.0.1.9", "NXDOMAIN", &[]),
    ("www.example.com A", "REFUSED", &[]),
    ("com A", "REFUSED", &[]),
    (". NS", "REFUSED", &[]),
    ("-x 192.168.0.1", "NXDOMAIN", &[]),
    // The rest.
    ("twice.pressroom.local A", "NOERROR", &["twice.pressroom.local. 300 IN A 10.0.7.1"]),
    (
        "twice.pressroom.local SRV",
        "NOERROR",
        &[
            "twice.pressroom.local. 300 IN SRV 10 100 80 1.twice.pressroom.local.",
            "+1.twice.pressroom.local. 300 IN A 10.0.7.1",
        ],
    ),
    (
        "twice.pressroom.local ANY",
        "NOERROR",
        &["twice.pressroom.local. 5 IN HINFO \"RFC8482\" \"\""],
    ),
    ("pressroom.local AXFR", "REFUSED", &[]),
    ("version.bind TXT -c CH", "REFUSED", &[]),
    ("twice.pressroom.local A +opcode=STATUS", "NOTIMP", &[]),
    ("twice.pressroom.local A +edns=7 +noednsnegotiation", "BADVERS", &[]),
];

#[tokio::test]
async fn the_table_of_cases_holds() {
    let etcd = Etcd::start();
    let server = Server::start(None);
    follow(etcd.store(&server.tasks).await, &server);
    // Values that cannot be read are passed over, and hide nobody.
    let bad = [("bad", "no json"), ("worse", r#"{"host":"a b"}"#)];
    let bad =
        bad.map(|(name, value)| (format!("local/pressroom/east/production/rails/{name}"), value));
    let records = RECORDS.iter().map(|(key, value)| ((*key).to_owned(), *value));
    // No condition, so many writes, nothing else; the tool takes quotes as Go's strings have them.
    let mut writes = String::from("\n");
    for (key, value) in records.chain(bad) {
        writeln!(writes, "put /skydns/{key} {value:?}").unwrap();
    }
    etcd.etcdctl(&["txn"], &(writes + "\n\n"));
    let late = Instant::now() + Duration::from_secs(10);
    while server.dig("twice.pressroom.local A").await.status != "NOERROR" {
        assert!(Instant::now() < late);
    }
    let mut wrong = Vec::new();
    for (words, status, wanted) in CASES {
        let words = words.replace(" AXFR", " AXFR +noall +comments +ignore");
        let said = server.dig(&words).await;
        let additional = said.additional.iter().map(|line| format!("+{line}"));
        let without_serial = |line: &String| match line.split_once(" hostmaster.pressroom.local. ")
        {
            Some((front, rest)) => {
                let (_, rest) = rest.split_once(' ').unwrap_or_default();
                format!("{front} hostmaster.pressroom.local. … {rest}")
            }
            None => line.clone(),
        };
        let mut all: Vec<String> =
            said.answers.iter().map(without_serial).chain(additional).collect();
        let mut wanted: Vec<String> = wanted.iter().map(|line| (*line).to_owned()).collect();
        all.sort();
        wanted.sort();
        let is_transfer = words.contains("AXFR");
        let is_status =
            said.status == *status || is_transfer && said.all.contains("Transfer failed");
        // Whoever hears that there is nothing hears for how long.
        let is_negative = ["NOERROR", "NXDOMAIN"].contains(status) && said.answers.is_empty();
        let has_soa = said.authority.iter().any(|line| line.contains(" 5 IN SOA "));
        if !is_status || all != wanted || is_negative != has_soa {
            wrong.push(format!("{words}: {status} {wanted:#?}\nbut it was\n{}", said.all));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
