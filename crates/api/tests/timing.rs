//! A1, A13, A32: how long the server takes tells nobody whether an e-mail, or the id of an API key, is
//! one that it knows, nor how much of a secret was guessed.
//!
//! Two kinds of request are sent in pairs, and a coin says which of a pair goes first. If both take
//! equally long, then which of the two is slower is a coin's toss as well, however fast the machine is
//! and whatever else it does. So the number of pairs in which the one is slower lies further than
//! [`Z_MAX`] standard deviations from half of them in at most `2·exp(-Z_MAX²/2)` of all runs, one in
//! 12,400 (Hoeffding); for the seven comparisons here together that is one false alarm in 1,700 runs.
//! It is one less often, because a difference also has to be worth telling: [`GAP_MAX`] of a hash.
//!
//! Alone in its process, so that nothing of its own stands in the way.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fmt, net::SocketAddr, path::Path, time::Duration};

use caller::{Answer, Line, nearly, with_id_of, wrong_key};
use serde_json::{Value, json};
use skytale_api::{Config, Server, clock::Clock};
use tokio_util::sync::CancellationToken;

#[allow(dead_code, reason = "other tests need more of it")]
mod caller;

/// Pairs of each comparison.
const PAIRS: u32 = 200;
/// How lopsided the pairs may be, in standard deviations of a fair coin.
const Z_MAX: f64 = 4.5;
/// What a difference must be at least to be one, as a part of the time that a hash takes: of the 26 ms
/// of the default settings, not quite a millisecond.
const GAP_MAX: f64 = 1.0 / 30.0;

const PASSWORD: &str = "correct horse battery";
const WRONG: &str = "a wrong password";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_learns_from_the_time_of_a_refusal_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), HASH_KIB).await;
    let mut trial = Trial::begin(house.addr).await;
    println!("seed {}", trial.coin.0);
    let (familiar, cold, over) = keys(&house, &mut trial.line).await;
    Request::sign_up("alice@example.org")
        .ask(&mut trial.line)
        .await;

    // The control: a hash left out is found, for keys and for passwords. Whoever sends what is malformed
    // or far too long knows that before.
    let unknown_key = |n| Request::with_key(wrong_key(n));
    let unknown_email = |n| Request::sign_in(&format!("nobody{n}@example.org"), WRONG);
    let malformed = |_| Request::with_key("sk_live_malformed".to_owned());
    let endless = |_| Request::sign_in("nobody@example.org", &"x".repeat(1_025));
    let mut hash = f64::MAX;
    for (what, control) in [
        (
            "a malformed key",
            trial.compare(unknown_key, malformed).await,
        ),
        (
            "an endless password",
            trial.compare(unknown_email, endless).await,
        ),
    ] {
        println!("control, {what}: {control}");
        hash = hash.min(control.gap);
        assert!(control.z > Z_MAX && control.gap > 0.0, "{what}: {control}");
    }

    let of_key = |key: &str| {
        let key = key.to_owned();
        move |n| Request::with_key(with_id_of(&key, n))
    };
    let nearly_right = |_| Request::with_key(nearly(&familiar));
    let known_email = |_| Request::sign_in("alice@example.org", WRONG);
    let no_email = |_| Request::sign_in("nobody", WRONG);
    let free = |n| Request::sign_up(&format!("new{n}@example.org"));
    let taken = |_| Request::sign_up("alice@example.org");
    for (what, compared) in [
        (
            "a key's id",
            trial.compare(of_key(&cold), unknown_key).await,
        ),
        (
            "that of a key in use",
            trial.compare(of_key(&familiar), unknown_key).await,
        ),
        (
            "that of a revoked key",
            trial.compare(of_key(&over), unknown_key).await,
        ),
        (
            "a secret nearly right",
            trial.compare(nearly_right, of_key(&familiar)).await,
        ),
        ("an e-mail", trial.compare(known_email, unknown_email).await),
        (
            "what is no e-mail",
            trial.compare(known_email, no_email).await,
        ),
        (
            "an e-mail to sign up with",
            trial.compare(free, taken).await,
        ),
    ] {
        println!("{what}: {compared}");
        assert!(
            !compared.tells(hash),
            "{what}: {compared}; a hash: {hash} s"
        );
    }
    drop(trial);
    house.close().await;

    // The other control: half a hash is found too. A server that was given other settings hashes for
    // nobody by those, and checks who signed up before by the old ones. Both are `danger_` settings.
    let house = House::open(dir.path(), 2 * HASH_KIB).await;
    let mut trial = Trial::begin(house.addr).await;
    let control = trial.compare(unknown_email, known_email).await;
    println!("control, half a hash: {control}");
    assert!(control.tells(hash), "{control}");
    drop(trial);
    house.close().await;
}

/// What the rule says of numbers that are made up: of two kinds alike under a noise that drifts and
/// jumps it says nothing, and it finds a shift that is small beside that noise.
#[test]
fn the_rule_finds_a_shift_under_noise_and_nothing_where_there_is_none() {
    let mut coin = Coin(0x5eed);
    let mut run = |shift: f64| {
        let mut load = 0.0;
        let mut pairs = Vec::new();
        for pair in 0..PAIRS {
            load += coin.fraction() - 0.48;
            let busy = if pair % 50 < 5 { 20.0 } else { 0.0 };
            let mut time = |own: f64| {
                let noise = 900.0 * coin.fraction() + 500.0 * busy * coin.fraction();
                Duration::from_secs_f64((5_000.0 + own + 40.0 * load + noise) / 1e6)
            };
            pairs.push([time(shift), time(0.0)]);
        }
        Compared::of(&pairs)
    };
    let hash = 0.005;

    let alarms = (0..2_000).filter(|_| run(0.0).tells(hash)).count();
    let found = (0..100).filter(|_| run(500.0).tells(hash)).count();

    assert_eq!(alarms, 0);
    assert!(found >= 95, "{found}");
}

/// A connection over which kinds of request are compared.
struct Trial {
    line: Line,
    coin: Coin,
    sent: u64,
}

impl Trial {
    async fn begin(addr: SocketAddr) -> Self {
        Self {
            line: Line::open(addr).await.unwrap(),
            coin: Coin::seeded(),
            sent: 0,
        }
    }

    /// Sends pairs of two kinds, each with a number that none before had.
    async fn compare(
        &mut self,
        one: impl Fn(u64) -> Request,
        other: impl Fn(u64) -> Request,
    ) -> Compared {
        let mut pairs = Vec::new();
        for _ in 0..PAIRS {
            self.sent += 1;
            let requests = [one(self.sent), other(self.sent)];
            let first = usize::from(self.coin.toss());
            let mut took = [Duration::ZERO; 2];
            for which in [first, 1 - first] {
                took[which] = requests[which].ask(&mut self.line).await.took;
            }
            pairs.push(took);
        }
        Compared::of(&pairs)
    }
}

/// Two kinds of request, held against each other.
struct Compared {
    /// How many standard deviations of a fair coin the pairs are from half and half; above nothing when
    /// the first kind is slower.
    z: f64,
    /// How much longer the first kind takes, in seconds: between the medians.
    gap: f64,
    medians: [Duration; 2],
}

impl Compared {
    fn of(pairs: &[[Duration; 2]]) -> Self {
        let slower = pairs.iter().filter(|[one, other]| one > other).count();
        let faster = pairs.iter().filter(|[one, other]| one < other).count();
        let number = |count: usize| f64::from(u32::try_from(count).unwrap());
        let medians = [0, 1].map(|which| {
            let mut times: Vec<_> = pairs.iter().map(|pair| pair[which]).collect();
            times.sort();
            times[times.len() / 2]
        });
        Self {
            z: (number(slower) - number(faster)) / number(pairs.len()).sqrt(),
            gap: medians[0].as_secs_f64() - medians[1].as_secs_f64(),
            medians,
        }
    }

    /// Whether somebody could tell the two apart.
    fn tells(&self, hash: f64) -> bool {
        self.z.abs() > Z_MAX && self.gap.abs() > GAP_MAX * hash
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = self.medians;
        write!(f, "{one:?} against {other:?}, {:.1} deviations", self.z)
    }
}

struct Request {
    path: &'static str,
    bearer: String,
    body: String,
    status: u16,
}

impl Request {
    fn with_key(bearer: String) -> Self {
        Self {
            path: "/v1/tokens",
            bearer,
            body: "{}".to_owned(),
            status: 401,
        }
    }

    fn sign_in(email: &str, password: &str) -> Self {
        Self {
            path: "/v1/sessions",
            bearer: String::new(),
            body: login(email, password),
            status: 401,
        }
    }

    fn sign_up(email: &str) -> Self {
        Self {
            path: "/v1/accounts",
            bearer: String::new(),
            body: login(email, PASSWORD),
            status: 202,
        }
    }

    async fn ask(&self, line: &mut Line) -> Answer {
        let answer = line.post(self.path, &self.bearer, &self.body).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, self.status, "{}", answer.body);
        answer
    }
}

struct House {
    addr: SocketAddr,
    first_key: Option<String>,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl House {
    async fn open(dir: &Path, danger_argon2_memory_kib: u32) -> Self {
        let config = Config {
            addr: "127.0.0.1:0".parse().unwrap(),
            danger_argon2_memory_kib,
            // Whoever guesses this often is stopped by other means: here it is only about time.
            unproven_per_minute_max: 1_000_000,
            wrong_passwords_per_hour_max: 1_000_000,
            ..Config::new(dir)
        };
        let server = Server::bind_with(config, Clock::system()).await.unwrap();
        let addr = server.addr();
        let local = server.bootstrap_local().await.unwrap();
        let first_key = local.map(|it| it.api_key.expose().to_owned());
        let stop = CancellationToken::new();
        let served = tokio::spawn(server.serve(stop.clone()));
        Self {
            addr,
            first_key,
            stop,
            served,
        }
    }

    async fn close(self) {
        self.stop.cancel();
        self.served.await.unwrap();
    }
}

/// One that was used of late, one that never was, and one that is revoked.
async fn keys(house: &House, line: &mut Line) -> (String, String, String) {
    let first = house.first_key.clone().unwrap();
    let mut made = Vec::new();
    for name in ["cold", "over"] {
        let wish = json!({"name": name}).to_string();
        let answer = line.post("/v1/keys", &first, &wish).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
        let key: Value = serde_json::from_str(&answer.body).unwrap();
        made.push(key);
    }
    let text = |which: usize, field: &str| made[which][field].as_str().unwrap().to_owned();
    let path = format!("/v1/keys/{}", text(1, "id"));
    let revoked = line.send("DELETE", &path, &first, "").await.unwrap();
    assert_eq!(revoked.status, 204);
    (first, text(0, "key"), text(1, "key"))
}

fn login(email: &str, password: &str) -> String {
    json!({"email": email, "password": password}).to_string()
}

/// Chance that can be had again: Marsaglia's xorshift, with Vigna's multiplier.
struct Coin(u64);

impl Coin {
    fn seeded() -> Self {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).unwrap();
        Self(u64::from_le_bytes(seed) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn toss(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    /// From nothing to just below one.
    fn fraction(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / 4_294_967_296.0
    }
}

/// A quarter of the default: long beside everything else that a request costs, and short enough for
/// thousands of them.
const HASH_KIB: u32 = 4_864;
