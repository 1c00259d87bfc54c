//! The password in a database URL is in no log line at any level, no `Debug` and no error, whatever
//! goes well or wrong with the database.
//!
//! Alone in its process, because it listens to everything that the whole process logs.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use cluster::{Cluster, PASSWORD};
use heard::Log;
use skytale_api::{Config, Server, clock::Clock};
use skytale_wire::id::Time;

#[allow(dead_code, reason = "other tests need more of it")]
#[path = "../src/store/postgres/cluster.rs"]
mod cluster;
mod heard;

#[tokio::test]
async fn the_password_is_nowhere() {
    let log = Log::listen();
    let cluster = Cluster::start();
    let database = cluster.database();
    let dir = tempfile::tempdir().unwrap();
    let mut said = String::new();
    let mut note = |text: String| said.push_str(&text);

    // Given a server that works, fails while it runs, and works again,
    let config = config(dir.path(), &database.url);
    note(format!("{config:?}"));
    let server = Server::bind_with(config.clone(), clock()).await.unwrap();
    note(format!("{server:?}"));
    server.bootstrap_local().await.unwrap().unwrap();
    cluster.stop_hard();
    let gone = server.new_local_key().await.unwrap_err();
    note(format!("{gone} {gone:?}"));
    let gone = Server::bind_with(config, clock()).await.unwrap_err();
    note(format!("{gone} {gone:?}"));
    cluster.start_again();
    server.new_local_key().await.unwrap();

    // when others are refused at each of the doors,
    for url in [
        database.url.replace("/test", "/nowhere"),
        database.url.replace("alice", "mallory"),
        database.url.replace("127.0.0.1", "0.0.0.0"),
        database.url.replace("127.0.0.1", "db.example.org") + "?sslmode=prefer",
        database.url.clone() + "?sslmode=verify-full",
        database.url.clone() + "?sslrootcert=nowhere.pem&sslmode=verify-full",
        database.url.clone() + "?pasword=" + PASSWORD,
        database.url.replace('@', "/@"),
    ] {
        let refused = Server::bind_with(self::config(dir.path(), &url), clock()).await;
        let refused = refused.unwrap_err();
        note(format!("{refused} {refused:?}"));
    }

    // then it was said nowhere.
    let logged = log.text();
    assert!(logged.contains("the store refused"), "the log was heard");
    assert!(!logged.contains(PASSWORD), "logged");
    assert!(!said.contains(PASSWORD), "said: {said}");
}

fn config(dir: &Path, url: &str) -> Config {
    let mut config = Config::new(dir);
    config.addr = "127.0.0.1:0".parse().unwrap();
    config.danger_argon2_memory_kib = 64;
    config.danger_argon2_passes = 1;
    config.database_url = Some(url.to_owned().into());
    // For a busy machine; a request to a server that is gone waits as long.
    config.database_wait_ms_max = 10_000;
    config.database_statement_ms_max = 60_000;
    config
}

fn clock() -> Clock {
    Clock::from_fn(|| Time(1_790_000_000_000))
}
