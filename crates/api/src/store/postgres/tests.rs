//! The store on a real server: what every store must do, two programs at once, and outages.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use skytale_wire::token::Scopes;
use tower::ServiceExt as _;

use super::{
    cluster::{Cluster, Database, PASSWORD},
    *,
};
use crate::{clock::Clock, config::Config, router::routes, run::Server, store::conformance};

const NOW: Time = Time(1_790_000_000_000);
/// What must come soon comes within this, also on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// What must come at all.
const PATIENCE: Duration = Duration::from_mins(2);

async fn open(url: &str) -> Result<Postgres, Error> {
    open_with(url, Migrations::Apply).await
}

async fn open_with(url: &str, migrations: Migrations) -> Result<Postgres, Error> {
    Postgres::open(&url.to_owned().into(), patient(), migrations, NOW).await
}

/// No test that is not about limits meets one.
fn patient() -> Limits {
    Limits {
        connections_max: 5,
        wait: PATIENCE,
        statement: PATIENCE,
    }
}

fn alice() -> NewAccount {
    person(1, "alice@example.org")
}

fn person(n: u8, email: &str) -> NewAccount {
    NewAccount {
        id: AccountId([n; 16]),
        email: Email::parse(email).unwrap(),
        name: String::new(),
        password: Hashed::from_stored("hash".to_owned()),
        now: NOW,
    }
}

fn key(id: &str) -> NewKey {
    NewKey {
        id: id.parse().unwrap(),
        account: AccountId([1; 16]),
        name: "ci".to_owned(),
        hash: Hashed::from_stored("hash".to_owned()),
        scopes: Scopes::all(),
        expires: None,
        now: NOW,
    }
}

/// A server's routes without its socket, on a database.
async fn house(database: &Database, dir: &Path) -> Router {
    let mut config = Config::new(dir);
    config.addr = "127.0.0.1:0".parse().unwrap();
    config.danger_argon2_memory_kib = 64;
    config.danger_argon2_passes = 1;
    config.database_url = Some(database.url.clone().into());
    let server = Server::bind_with(config, Clock::from_fn(|| NOW)).await;
    routes(server.unwrap().into_app())
}

struct Answered {
    status: StatusCode,
    retry_after: Option<String>,
    body: String,
}

async fn sign_up(house: &Router, email: &str) -> Answered {
    let body = format!(r#"{{"email":"{email}","password":"correct horse battery"}}"#);
    let request = Request::post("/v1/accounts")
        .header("content-type", "application/json")
        .body(Body::from(body));
    send(house, request.unwrap()).await
}

async fn readiness(house: &Router) -> StatusCode {
    let request = Request::get("/readyz").body(Body::empty());
    send(house, request.unwrap()).await.status
}

async fn send(house: &Router, request: Request<Body>) -> Answered {
    let answer = timeout(SOON, house.clone().oneshot(request));
    let answer = answer.await.expect("it answers soon").unwrap();
    let (parts, body) = answer.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    Answered {
        status: parts.status,
        retry_after: parts
            .headers
            .get("retry-after")
            .map(|value| value.to_str().unwrap().to_owned()),
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

/// Tries until it is taken.
async fn until_signed_up(house: &Router, email: &str) {
    let tried = async {
        while sign_up(house, email).await.status != StatusCode::ACCEPTED {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, tried).await.expect("it heals by itself");
}

async fn until_ready(house: &Router) {
    let asked = async {
        while readiness(house).await != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, asked).await.expect("it heals by itself");
}

async fn expect_an_outage(house: &Router) {
    let refused = sign_up(house, "bob@example.org").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.retry_after.as_deref(), Some("1"));
    assert!(
        refused.body.contains(r#""code":"unavailable""#),
        "{}",
        refused.body
    );
    assert_eq!(readiness(house).await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn it_does_what_every_store_must() {
    let database = Cluster::shared().database();
    let store = open(&database.url).await.unwrap();

    conformance::conformance(&store).await.unwrap();
}

#[tokio::test]
async fn a_socket_serves_as_well() {
    let database = Cluster::shared().database();
    let store = open(&database.socket_url).await.unwrap();

    conformance::conformance(&store).await.unwrap();
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_crash() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let store = open(&database.url).await.unwrap();
    store.create_account(alice()).await.unwrap();

    cluster.stop_hard();
    cluster.start_again();

    let store = open(&database.url).await.unwrap();
    assert!(store.account(AccountId([1; 16])).await.unwrap().is_some());
}

/// A role or database may have weaker settings of its own; they count for nothing here.
#[tokio::test]
async fn every_connection_has_the_settings_that_durability_needs() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let name = database.url.rsplit('/').next().unwrap();
    for weak in [
        "synchronous_commit = off",
        "statement_timeout = 0",
        "default_transaction_isolation = 'serializable'",
    ] {
        cluster.ask(&database, &format!("ALTER DATABASE {name} SET {weak}"));
    }
    let store = open(&database.url).await.unwrap();

    let (commit, limit, isolation): (String, String, String) = store
        .run(|db| {
            Box::pin(async move {
                sqlx::query_as(
                    "SELECT current_setting('synchronous_commit'),
                            current_setting('statement_timeout'),
                            current_setting('transaction_isolation')",
                )
                .fetch_one(db)
                .await
            })
        })
        .await
        .unwrap();

    assert_eq!(
        (commit.as_str(), limit.as_str(), isolation.as_str()),
        ("on", "2min", "read committed")
    );
}

#[tokio::test]
async fn a_database_that_takes_nothing_is_not_ready() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    drop(open(&database.url).await.unwrap());
    let name = database.url.rsplit('/').next().unwrap();
    let only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    cluster.ask(&database, &only);

    let store = open_with(&database.url, Migrations::Demand).await.unwrap();

    assert_eq!(store.ready().await, Err(Failure::Unavailable));
    assert_eq!(
        store.create_account(alice()).await,
        Err(Failure::Unavailable)
    );
}

#[tokio::test]
async fn of_many_sign_ups_for_one_address_one_succeeds() {
    let database = Cluster::shared().database();
    let store = Arc::new(open(&database.url).await.unwrap());

    let tries: Vec<_> = (1..=20)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.create_account(person(n, "alice@x")).await })
        })
        .collect();
    let mut made = 0;
    for tried in tries {
        made += u32::from(tried.await.unwrap().unwrap() == Created::Yes);
    }

    assert_eq!(made, 1);
}

#[tokio::test]
async fn keys_that_are_made_at_once_stay_within_the_limit() {
    let database = Cluster::shared().database();
    let store = Arc::new(open(&database.url).await.unwrap());
    store.create_account(alice()).await.unwrap();

    let tries: Vec<_> = (10..30)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.create_key(key(&format!("abcdef{n}")), 3).await })
        })
        .collect();
    let mut made = 0;
    for tried in tries {
        made += u32::from(tried.await.unwrap().unwrap() == KeyCreated::Yes);
    }

    assert_eq!(made, 3);
    let listed = store.keys(AccountId([1; 16]), None, 100).await.unwrap();
    assert_eq!(listed.len(), 3);
}

#[tokio::test]
async fn exchanges_at_once_are_all_counted() {
    let database = Cluster::shared().database();
    let store = Arc::new(open(&database.url).await.unwrap());
    store
        .create_account_with_key(alice(), key("abcdefgh"))
        .await
        .unwrap();

    let tries: Vec<_> = (0..20)
        .map(|_| {
            let store = Arc::clone(&store);
            let month = "2026-11".parse().unwrap();
            tokio::spawn(async move {
                let agent = Some(AgentId([7; 32]));
                store
                    .count_exchange("abcdefgh".parse().unwrap(), agent, month, Bounds::NONE, NOW)
                    .await
            })
        })
        .collect();
    for tried in tries {
        assert_eq!(tried.await.unwrap().unwrap(), Exchange::Counted);
    }

    let usage = store.usage(AccountId([1; 16])).await.unwrap();
    assert_eq!(usage[0].1.token_exchanges, 20);
}

/// Two keys of an account, at two servers, for the same agents in opposite orders.
#[tokio::test]
async fn purchases_for_the_same_agents_do_not_wait_in_a_circle() {
    const AGENTS: u8 = 60;
    const ROUNDS: usize = 10;
    let database = Cluster::shared().database();
    let stores = [
        open(&database.url).await.unwrap(),
        open(&database.url).await.unwrap(),
    ];
    stores[0].create_account(alice()).await.unwrap();
    for id in ["firstkey", "secondky"] {
        stores[0].create_key(key(id), 9).await.unwrap();
    }
    let month = "2026-11".parse().unwrap();

    for _ in 0..ROUNDS {
        let mut asked = Vec::new();
        for n in 0..AGENTS {
            for (store, id, n) in [
                (&stores[0], "firstkey", n),
                (&stores[1], "secondky", AGENTS - 1 - n),
            ] {
                let (id, agent) = (id.parse().unwrap(), Some(AgentId([n; 32])));
                asked.push(store.count_exchange(id, agent, month, Bounds::NONE, NOW));
            }
        }
        for answer in asked {
            assert_eq!(answer.await.unwrap(), Exchange::Counted);
        }
    }

    let usage = stores[1].usage(AccountId([1; 16])).await.unwrap();
    let all = u64::from(AGENTS) * 2 * ROUNDS as u64;
    assert_eq!(usage[0].1.token_exchanges, all);
}

/// Those that waited together are refused together, and the next one is served.
#[tokio::test]
async fn purchases_go_on_after_an_outage() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let impatient = Limits {
        wait: Duration::from_secs(1),
        ..patient()
    };
    let url = database.url.clone().into();
    let store = Postgres::open(&url, impatient, Migrations::Apply, NOW);
    let store = store.await.unwrap();
    store
        .create_account_with_key(alice(), key("abcdefgh"))
        .await
        .unwrap();
    let month = "2026-11".parse().unwrap();
    let buy = || store.count_exchange("abcdefgh".parse().unwrap(), None, month, Bounds::NONE, NOW);
    assert_eq!(buy().await, Ok(Exchange::Counted));

    cluster.stop_hard();
    let asked: Vec<_> = (0..100).map(|_| buy()).collect();
    for answer in asked {
        assert_eq!(answer.await, Err(Failure::Unavailable));
    }
    cluster.start_again();

    let served = async {
        while buy().await != Ok(Exchange::Counted) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, served).await.expect("it heals by itself");
    let usage = store.usage(AccountId([1; 16])).await.unwrap();
    assert_eq!(
        usage[0].1.token_exchanges, 2,
        "what was refused was not counted"
    );
}

/// Whoever reads up to a place must not miss a lower one that becomes visible later.
#[tokio::test]
async fn what_is_revoked_at_once_gets_its_places_in_the_order_in_which_it_is_seen() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let store = Arc::new(open(&database.url).await.unwrap());
    store
        .create_account_with_key(alice(), key("secondky"))
        .await
        .unwrap();
    let first = Revoked::Key("firstkey".parse().unwrap());
    let (listed, is_listed) = oneshot::channel();
    let (end, may_end) = oneshot::channel();
    let holding = tokio::spawn({
        let (store, first) = (Arc::clone(&store), first.clone());
        async move {
            let held: Answer<'_, ()> = store.run(move |db| {
                Box::pin(async move {
                    list_revoked(db, &first, NOW).await?;
                    listed.send(()).unwrap();
                    may_end.await.unwrap();
                    Ok(())
                })
            });
            held.await
        }
    });
    is_listed.await.unwrap();

    let revoking = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let id = "secondky".parse().unwrap();
            store.revoke_key(AccountId([1; 16]), id, NOW).await
        }
    });

    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database =
                   (SELECT oid FROM pg_database WHERE datname = current_database())";
    let waits = async {
        while cluster.ask(&database, waiting) != "1" {
            assert!(!revoking.is_finished(), "the later one was seen first");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waits).await.expect("it waits");
    assert_eq!(store.revocations(None, Time(0), 9).await.unwrap(), []);
    end.send(()).unwrap();
    holding.await.unwrap().unwrap();
    assert!(revoking.await.unwrap().unwrap());
    let all = store.revocations(None, Time(0), 9).await.unwrap();
    let second = Revoked::Key("secondky".parse().unwrap());
    let revoked: Vec<_> = all.into_iter().map(|(_, it)| it.revoked).collect();
    assert_eq!(revoked, [first, second]);
}

#[tokio::test]
async fn servers_that_start_together_migrate_once_and_all_come_up() {
    let cluster = Cluster::shared();
    let database = cluster.database();

    let starts: Vec<_> = (0..6)
        .map(|_| {
            let url = database.url.clone();
            tokio::spawn(async move { open(&url).await })
        })
        .collect();
    for start in starts {
        start.await.unwrap().unwrap();
    }

    let applied = "SELECT number, applied_ms FROM skytale_migrations ORDER BY number";
    let once = format!("1|{0}\n2|{0}\n3|{0}\n4|{0}\n5|{0}", NOW.0);
    assert_eq!(cluster.ask(&database, applied), once);
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    drop(open(&database.url).await.unwrap());
    cluster.ask(&database, "INSERT INTO skytale_migrations VALUES (99, 0)");

    for migrations in [Migrations::Apply, Migrations::Demand] {
        let refused = open_with(&database.url, migrations).await.unwrap_err();

        assert!(matches!(refused, Error::Misuse(_)), "{refused:?}");
        assert!(refused.to_string().contains("newer skytale"), "{refused}");
    }
}

#[tokio::test]
async fn without_migrating_a_server_starts_only_on_a_schema_that_is_whole() {
    let cluster = Cluster::shared();
    let database = cluster.database();

    let refused = open_with(&database.url, Migrations::Demand)
        .await
        .unwrap_err();

    assert!(refused.to_string().contains("`skytale migrate schema`"));
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(cluster.ask(&database, tables), "0", "nothing was made");
    let url = database.url.clone().into();
    let clock = Clock::from_fn(|| NOW);
    let schema = crate::migrate::schema(&url, &clock).await.unwrap();
    assert_eq!((schema.before, schema.now), (0, 5));
    let again = crate::migrate::schema(&url, &clock).await.unwrap();
    assert_eq!((again.before, again.now), (5, 5));
    open_with(&database.url, Migrations::Demand).await.unwrap();
}

#[tokio::test]
async fn somebody_elses_tables_are_left_alone() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.ask(&database, "CREATE TABLE accounts (theirs TEXT)");

    let refused = open(&database.url).await.unwrap_err();

    assert!(
        refused.to_string().contains("a database of its own"),
        "{refused}"
    );
    let ours = "SELECT to_regclass('skytale_migrations') IS NULL";
    assert_eq!(cluster.ask(&database, ours), "t", "all or nothing");
}

#[tokio::test]
async fn whoever_starts_it_is_told_what_is_wrong_and_no_password() {
    let database = Cluster::shared().database();
    let name = database.url.rsplit('/').next().unwrap();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    for (url, told) in [
        (
            database.url.replace(PASSWORD, "needle-that-is-wrong"),
            "refuses this user or password",
        ),
        (database.url.replace(name, "nowhere"), "createdb"),
        (
            format!("postgres://alice:needle@127.0.0.1:{port}/skytale"),
            "does not answer",
        ),
        (
            format!("{}?sslmode=verify-full", database.url),
            "no verified TLS",
        ),
    ] {
        let refused = open(&url).await.unwrap_err();

        let said = format!("{refused} {refused:?}");
        assert!(said.contains(told), "{said}");
        assert!(!said.contains("needle"), "{said}");
    }
    let store = open(&database.url).await.unwrap();
    assert!(!format!("{store:?}").contains("needle"));
}

/// The other machine is here: had it been called at all, somebody would be at the door.
#[tokio::test]
async fn another_machine_without_verified_tls_is_not_even_called() {
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = door.local_addr().unwrap().port();
    let here = format!("postgres://alice:needle@127.0.0.1:{port}/skytale");
    // Not a spelling of this machine that is known as one, and yet the system goes there.
    let there = here.replace("127.0.0.1", "0.0.0.0");
    for weak in ["disable", "allow", "prefer", "require", "verify-ca"] {
        let refused = open(&format!("{there}?sslmode={weak}")).await.unwrap_err();
        assert!(refused.to_string().contains("remove sslmode"), "{refused}");
    }

    // The next one that knocks is the first.
    let knocks = tokio::spawn(async move { open(&here).await.map(|_| ()) });
    let (mut first, _) = door.accept().await.unwrap();

    let mut head = [0; 8];
    tokio::io::AsyncReadExt::read_exact(&mut first, &mut head)
        .await
        .unwrap();
    assert_eq!(head[4..], [0, 3, 0, 0], "the greeting that has no TLS");
    drop(first);
    assert!(knocks.await.unwrap().is_err());
}

/// The driver asks for TLS first and, unless it must have it, goes on without.
#[tokio::test]
async fn a_server_elsewhere_that_speaks_no_tls_gets_no_password() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = door.local_addr().unwrap().port();
    let there = format!("postgres://alice:needle@0.0.0.0:{port}/skytale");
    let opens = tokio::spawn(async move { open(&there).await.map(|_| ()) });
    let (mut asked, _) = door.accept().await.unwrap();
    let mut wish = [0; 8];
    asked.read_exact(&mut wish).await.unwrap();
    assert_eq!(
        wish,
        [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f],
        "TLS is asked for"
    );

    asked.write_all(b"N").await.unwrap();

    let mut rest = Vec::new();
    asked.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "nothing more is said");
    let refused = opens.await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("TLS"), "{refused}");
}

#[tokio::test]
async fn a_server_is_known_by_its_certificate_and_its_name() {
    let cluster = Cluster::start();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    cluster.speak_tls(&made.cert.pem(), &made.signing_key.serialize_pem());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("authority.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let address = cluster.database().url;
    let name = address.replace("127.0.0.1", "localhost");
    let known = format!("sslmode=verify-full&sslrootcert={}", file.display());

    let store = open(&format!("{name}?{known}")).await.unwrap();

    let encrypted: bool = store
        .run(|db| {
            Box::pin(async move {
                sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
                    .fetch_one(db)
                    .await
            })
        })
        .await
        .unwrap();
    assert!(encrypted);
    for other in [
        format!("{name}?sslmode=verify-full"),
        format!("{address}?{known}"),
    ] {
        let refused = open(&other).await.unwrap_err();
        assert!(refused.to_string().contains("no verified TLS"), "{refused}");
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_told_as_unavailable_and_found_again() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let dir = tempfile::tempdir().unwrap();
    let house = house(&database, dir.path()).await;
    until_signed_up(&house, "alice@example.org").await;

    cluster.stop_hard();
    expect_an_outage(&house).await;
    cluster.start_again();

    until_signed_up(&house, "bob@example.org").await;
    until_ready(&house).await;
}

#[tokio::test]
async fn a_server_that_stands_still_is_told_as_unavailable_and_found_again() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let dir = tempfile::tempdir().unwrap();
    let house = house(&database, dir.path()).await;
    // Many at once, so that the pool has connections that know nothing of it.
    let asked: Vec<_> = (0..20)
        .map(|n| {
            let house = house.clone();
            tokio::spawn(async move { until_signed_up(&house, &format!("p{n}@example.org")).await })
        })
        .collect();
    for asked in asked {
        asked.await.unwrap();
    }

    cluster.freeze();
    // More than the pool has connections, so that each of them has been tried.
    let refused: Vec<_> = (0..20)
        .map(|_| {
            let house = house.clone();
            tokio::spawn(async move { expect_an_outage(&house).await })
        })
        .collect();
    for refused in refused {
        refused.await.unwrap();
    }
    cluster.thaw();

    until_signed_up(&house, "carol@example.org").await;
    until_ready(&house).await;
}

#[tokio::test]
async fn a_verb_that_waits_for_somebody_elses_lock_gives_up() {
    let database = Cluster::shared().database();
    let store = open(&database.url).await.unwrap();
    let url = DatabaseUrl::from(database.url.clone());
    let limits = Limits {
        statement: Duration::from_millis(500),
        ..patient()
    };
    let hasty = Postgres::open(&url, limits, Migrations::Demand, NOW)
        .await
        .unwrap();
    let options = url.connect_options().unwrap();
    let mut other = connect(&options).await.unwrap();
    let mut held = other.begin().await.unwrap();
    sqlx::raw_sql(
        "SET LOCAL idle_in_transaction_session_timeout = 0; LOCK TABLE accounts IN EXCLUSIVE MODE",
    )
    .execute(&mut *held)
    .await
    .unwrap();

    let refused = timeout(PATIENCE, hasty.create_account(person(2, "bob@x"))).await;

    assert_eq!(refused.unwrap(), Err(Failure::Unavailable));
    held.rollback().await.unwrap();
    assert_eq!(
        store.create_account(person(2, "bob@x")).await,
        Ok(Created::Yes)
    );
}

/// With one connection, because the place of each that was lost would be missing for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_verb_that_was_under_way_when_the_server_stood_still_gives_its_place_back() {
    let cluster = Cluster::start();
    let database = cluster.database();
    drop(open(&database.url).await.unwrap());
    let url = DatabaseUrl::from(database.url.clone());
    let limits = Limits {
        connections_max: 1,
        statement: Duration::from_secs(5),
        ..patient()
    };
    let store = Postgres::open(&url, limits, Migrations::Demand, NOW).await;
    let store = Arc::new(store.unwrap());
    let mut other = connect(&url.connect_options().unwrap()).await.unwrap();
    let mut held = other.begin().await.unwrap();
    sqlx::raw_sql(
        "SET LOCAL idle_in_transaction_session_timeout = 0; LOCK TABLE accounts IN EXCLUSIVE MODE",
    )
    .execute(&mut *held)
    .await
    .unwrap();
    let asked = Arc::clone(&store);
    let under_way = tokio::spawn(async move { asked.create_account(alice()).await });
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    while !under_way.is_finished() && cluster.ask(&database, waits) == "f" {}

    cluster.freeze();
    let refused = timeout(PATIENCE, under_way).await.unwrap();
    cluster.thaw();

    assert_eq!(refused.unwrap(), Err(Failure::Unavailable));
    held.rollback().await.unwrap();
    let tried = async {
        while store.create_account(alice()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, tried).await.expect("there is a place");
}
