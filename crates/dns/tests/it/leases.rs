//! Records that go with their leases, as etcd has them.

use std::time::{Duration, Instant};

use crate::dig::Server;
use crate::etcd::{Etcd, follow};

async fn until(server: &Server, name: &str, status: &str) -> Duration {
    let begun = Instant::now();
    while server.dig(&format!("{name}.pressroom.local A")).await.status != status {
        assert!(begun.elapsed() < Duration::from_secs(20), "{name} is not {status}");
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_crashed_goes_with_its_lease_what_stopped_at_once_and_what_lives_stays_without_etcd() {
    let mut etcd = Etcd::start();
    let server = Server::start(None);
    follow(etcd.store(&server.tasks).await, &server);
    let said = etcd.etcdctl(&["lease", "grant", "3"], "");
    let lease = said.split(' ').nth(1).unwrap().to_owned();
    let put = |name: &str, lease: &str| {
        let key = format!("/skydns/local/pressroom/{name}");
        let value = r#"{"host":"10.0.0.1","ttl":60}"#;
        etcd.etcdctl(&["put", &key, value, "--lease", lease], "");
    };
    put("crashed", &lease);
    let long = etcd.etcdctl(&["lease", "grant", "600"], "");
    let long = long.split(' ').nth(1).unwrap().to_owned();
    put("lives", &long);
    put("stopped", &long);
    for name in ["crashed", "lives", "stopped"] {
        until(&server, name, "NOERROR").await;
    }
    // Until it is gone no answer may be kept beyond its end.
    let begun = Instant::now();
    loop {
        let said = server.dig("crashed.pressroom.local A").await;
        let Some(answer) = said.answers.first() else { break };
        let ttl: u64 = answer.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(ttl <= 3_u64.saturating_sub(begun.elapsed().as_secs()), "{answer} {begun:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "it outlives its lease");
    }
    etcd.etcdctl(&["del", "/skydns/local/pressroom/stopped"], "");
    assert!(until(&server, "stopped", "NXDOMAIN").await < Duration::from_secs(2));
    // What nobody contradicts is answered on.
    etcd.kill();
    let said = server.dig("lives.pressroom.local A").await;
    let ttl = said.answers[0].split(' ').nth(1).unwrap();
    assert_eq!((said.status.as_str(), ttl), ("NOERROR", "60"));
}
