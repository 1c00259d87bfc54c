//! The dashboard as a browser meets it, and as somebody does who would like to misuse one.

use skytale_wire::{
    http::{Agents, UsageEntry},
    month::Month,
};

use super::{
    held::{channel, one_channel_each},
    *,
};
use crate::ui;

const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");

/// A browser with one cookie.
struct Browser<'a> {
    house: &'a House,
    cookie: String,
}

impl<'a> Browser<'a> {
    fn new(house: &'a House) -> Self {
        let cookie = String::new();
        Self { house, cookie }
    }

    /// One in which this person has signed in.
    async fn of(house: &'a House, name: &str) -> Self {
        let mut browser = Self::new(house);
        let answer = browser.sign_in(name, PASSWORD).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        assert_eq!(answer.headers["location"], "/ui");
        browser
    }

    async fn sign_in(&mut self, name: &str, password: &str) -> Answer {
        let form = format!(
            "email={name}%40example.org&password={}",
            password.replace(' ', "+")
        );
        let answer = self.send(Method::POST, "/ui/sign-in", &[SAME], &form).await;
        if let Some(set) = answer.headers.get("set-cookie") {
            let pair = set.to_str().unwrap().split(';').next();
            pair.unwrap().clone_into(&mut self.cookie);
        }
        answer
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        form: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method.clone()).uri(path);
        if !self.cookie.is_empty() {
            request = request.header("cookie", &self.cookie);
        }
        if method == Method::POST {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(form.to_owned())).unwrap();
        self.house.send(request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    /// What its pages would send.
    async fn post(&self, path: &str, form: &str) -> Answer {
        let proof = self.proof().await;
        let form = match form {
            "" => format!("proof={proof}"),
            form => format!("proof={proof}&{form}"),
        };
        self.send(Method::POST, path, &[SAME], &form).await
    }

    async fn proof(&self) -> String {
        let page = self.get("/ui").await;
        let after = page.body.split("name=\"proof\" value=\"").nth(1);
        after.unwrap().split('"').next().unwrap().to_owned()
    }
}

/// Each path with something in its places, and whether it takes forms, asks for a session, or both.
fn paths() -> Vec<String> {
    let all = ui::all().into_iter();
    let filled = |path: &str| path.replace("{id}", "nobody").replace("{month}", "2026-09");
    all.map(|(path, _)| filled(path)).collect()
}

const OPEN: [&str; 4] = [
    "/ui/sign-in",
    "/ui/sign-up",
    "/ui/style.css",
    "/ui/icon.svg",
];

#[tokio::test]
async fn every_answer_has_its_guards_and_no_page_has_a_script_or_a_style_in_it() {
    let house = House::open().await;
    let person = house.person("alice").await;
    let _relay = house.with_relay(relay_secret(), one_channel_each(3)).await;
    let hers = format!("/ui/channels/{}", channel(&person.session.account_id));
    let alice = Browser::of(&house, "alice").await;
    let nobody = Browser::new(&house);
    let mut pages = 0;
    for browser in [&alice, &nobody] {
        let beside = [
            "/ui/nowhere",
            "/ui/",
            "/ui/keys?after=x",
            "/ui/keys?after=1&after=2",
            &hers,
        ];
        for path in paths().iter().map(String::as_str).chain(beside) {
            for method in [Method::GET, Method::POST, Method::PUT] {
                let answer = browser.send(method.clone(), path, &[], "").await;

                let said = format!("{method} {path}: {}", answer.status);
                let header = |name| answer.headers[name].to_str().unwrap();
                assert_eq!(
                    header("content-security-policy"),
                    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                     base-uri 'none'; frame-ancestors 'none'",
                    "{said}"
                );
                assert_eq!(header("x-content-type-options"), "nosniff", "{said}");
                assert_eq!(header("referrer-policy"), "same-origin", "{said}");
                assert_eq!(
                    header("cross-origin-opener-policy"),
                    "same-origin",
                    "{said}"
                );
                let is_file = path.contains('.') && answer.status == StatusCode::OK;
                let kept = if is_file {
                    "public, max-age=300"
                } else {
                    "no-store"
                };
                assert_eq!(header("cache-control"), kept, "{said}");
                assert!(!answer.status.is_server_error(), "{said}");
                if answer.status.is_redirection() {
                    assert!(header("location").starts_with("/ui"), "{said}");
                    continue;
                }
                if is_file {
                    continue;
                }
                assert_eq!(header("content-type"), "text/html; charset=utf-8", "{said}");
                for odd in [
                    "<script",
                    "<style",
                    " style=",
                    " onclick",
                    "javascript:",
                    "http:",
                ] {
                    assert!(!answer.body.contains(odd), "{said}: {odd}");
                }
                pages += 1;
            }
        }
    }
    assert!(pages > 50, "{pages}");
}

#[tokio::test]
async fn without_a_session_every_page_leads_to_the_sign_in() {
    let house = House::open().await;
    let nobody = Browser::new(&house);
    for path in paths() {
        let answer = nobody.get(&path).await;
        if OPEN.contains(&path.as_str()) {
            assert_eq!(answer.status, StatusCode::OK, "{path}");
        } else if answer.status != StatusCode::METHOD_NOT_ALLOWED {
            assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
            assert_eq!(answer.headers["location"], "/ui/sign-in");
        }
    }
}

/// No page of somebody else can make a browser do something, however much it knows.
#[tokio::test]
async fn forms_that_our_pages_did_not_send_change_nothing() {
    let house = House::open().await;
    let person = house.person("alice").await;
    house.token(person.key(), agent_request()).await;
    house.person("mallory").await;
    let alice = Browser::of(&house, "alice").await;
    let mallory = Browser::of(&house, "mallory").await;
    let (good, foreign) = (alice.proof().await, mallory.proof().await);
    assert_ne!(good, foreign);
    let agent = AgentId([4; 32]);
    let forms = [
        ("/ui/keys".to_owned(), "name=more&relay=on&days=0"),
        (format!("/ui/keys/{}/revoke", person.key.id), ""),
        (format!("/ui/agents/{agent}"), "disabled=true"),
        ("/ui/sign-out".to_owned(), ""),
    ];
    let ours = ("origin", "http://skytale.example");
    let host = ("host", "skytale.example");
    for (path, form) in &forms {
        let before = state(&house, &person).await;
        let with = |proof: &str| format!("proof={proof}&{form}");
        let short = good.split_at(63).0;
        let forged: [(&[(&str, &str)], String); 12] = [
            (&[], with(&good)),
            (&[("sec-fetch-site", "cross-site")], with(&good)),
            (&[("sec-fetch-site", "same-site")], with(&good)),
            (&[("sec-fetch-site", "none"), host, ours], with(&good)),
            (&[host, ("origin", "null")], with(&good)),
            (&[host, ("origin", "https://evil.example")], with(&good)),
            (&[ours], with(&good)),
            (&[SAME], (*form).to_owned()),
            (&[SAME], with("")),
            (&[SAME], with(&foreign)),
            (&[SAME], with(short)),
            (&[SAME], format!("{form}&proof={good}")),
        ];
        for (headers, form) in forged {
            let answer = alice.send(Method::POST, path, headers, &form).await;
            let said = format!("{path} {headers:?} {form}: {}", answer.body);
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{said}");
            assert!(answer.headers.get("set-cookie").is_none(), "{said}");
        }
        assert_eq!(state(&house, &person).await, before, "{path}");
        // And it is no mistake of ours.
        let answer = alice
            .send(Method::POST, path, &[host, ours], &with(&good))
            .await;
        assert!(answer.status.is_success() || answer.status.is_redirection());
        if path != "/ui/sign-out" {
            assert_ne!(state(&house, &person).await, before, "{path}");
        }
        // As it was, for the next one.
        house
            .app
            .store
            .enable_agent(person.session.account_id, agent)
            .await
            .unwrap();
        let before = state(&house, &person).await;
        alice.get(path).await;
        assert_eq!(
            state(&house, &person).await,
            before,
            "a look changes nothing"
        );
    }
}

/// Signing in and up too: nobody is brought into an account of somebody else's.
#[tokio::test]
async fn nobody_is_signed_in_by_another_page() {
    let house = House::open().await;
    house.person("alice").await;
    let nobody = Browser::new(&house);
    let form = format!(
        "email=alice%40example.org&password={}",
        PASSWORD.replace(' ', "+")
    );
    for path in ["/ui/sign-in", "/ui/sign-up"] {
        for header in [
            None,
            Some(("sec-fetch-site", "cross-site")),
            Some(("origin", "null")),
        ] {
            let headers = header.as_slice();
            let answer = nobody.send(Method::POST, path, headers, &form).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
            assert!(answer.headers.get("set-cookie").is_none());
        }
    }
}

#[tokio::test]
async fn the_cookie_is_for_this_browser_and_these_pages_alone() {
    let clear = House::open().await;
    let secure = House::open_with(|config| config.behind_proxy = true).await;
    for (house, name, end) in [
        (&clear, "skytale=", "; HttpOnly; SameSite=Strict"),
        (
            &secure,
            "__Secure-skytale=",
            "; HttpOnly; SameSite=Strict; Secure",
        ),
    ] {
        house.person("alice").await;
        let mut alice = Browser::new(house);

        let answer = alice.sign_in("alice", PASSWORD).await;

        let set = answer.headers["set-cookie"].to_str().unwrap();
        assert!(set.starts_with(name), "{set}");
        assert!(
            set.ends_with(&format!("; Path=/ui; Max-Age=900{end}")),
            "{set}"
        );
        let out = alice.post("/ui/sign-out", "").await;
        let expected = format!("{name}; Path=/ui; Max-Age=0{end}");
        assert_eq!(out.headers["set-cookie"], expected);
        assert_eq!(out.headers["location"], "/ui/sign-in?note=signed-out");
    }
}

#[tokio::test]
async fn a_session_that_is_over_leads_to_the_sign_in_and_says_so() {
    let house = House::open().await;
    let person = house.person("alice").await;
    let alice = Browser::of(&house, "alice").await;
    let proof = alice.proof().await;
    let minutes = |n: u64| house.now.store(NOW.plus(n * 60_000).0, Ordering::Relaxed);

    minutes(15);
    assert_eq!(alice.get("/ui/keys").await.status, StatusCode::OK);
    minutes(16);
    let revoke = format!("/ui/keys/{}/revoke", person.key.id);
    for answer in [
        alice.get("/ui/keys").await,
        alice
            .send(Method::POST, &revoke, &[SAME], &format!("proof={proof}"))
            .await,
    ] {
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
        assert_eq!(answer.headers["location"], "/ui/sign-in?note=ended");
        assert!(
            answer.headers["set-cookie"]
                .to_str()
                .unwrap()
                .contains("Max-Age=0")
        );
    }
    assert_eq!(house.token(person.key(), json!({})).await.status, 200);
    let page = Browser::new(&house).get("/ui/sign-in?note=ended").await;
    assert!(page.body.contains("The session has ended"));

    // Another password ends it as well.
    let alice = Browser::of(&house, "alice").await;
    let session = house
        .post(
            "/v1/sessions",
            "",
            json!({"email": "alice@example.org", "password": PASSWORD}),
        )
        .await;
    let session: Session = session.read();
    minutes(17);
    let change = json!({"password": PASSWORD, "new_password": "another horse"});
    let changed = house
        .call(
            Method::PUT,
            "/v1/accounts/me/password",
            session.token.expose(),
            change,
        )
        .await;
    assert_eq!(changed.status, StatusCode::NO_CONTENT);
    let answer = alice.get("/ui").await;
    assert_eq!(answer.headers["location"], "/ui/sign-in?note=ended");
}

/// A7 of the list of attacks: each token at its own door.
#[tokio::test]
async fn nothing_but_a_session_opens_a_page_and_a_session_opens_no_relay() {
    let house = House::open().await;
    let person = house.person("alice").await;
    let account: TokenAnswer = house.token(person.key(), json!({})).await.read();
    let native: TokenAnswer = house.token(person.key(), agent_request()).await.read();
    let slim: TokenAnswer = house.token(person.key(), slim_request()).await.read();
    let alice = Browser::of(&house, "alice").await;
    let token = alice.cookie.strip_prefix("skytale=").unwrap();

    for cookie in [
        format!("skytale={}", account.token.expose()),
        format!("skytale={}", native.token.expose()),
        format!("skytale={}", slim.token.expose()),
        format!("skytale={}", person.key()),
        format!("skytale={token}x"),
        format!("Skytale={token}"),
        format!("skytale={token}; skytale={token}"),
        "skytale=".to_owned(),
    ] {
        let other = Browser {
            house: &house,
            cookie,
        };
        let answer = other.get("/ui").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", other.cookie);
    }
    // Among others it is found.
    let cookie = format!("a=b; {}; c=d", alice.cookie);
    assert_eq!(
        Browser {
            house: &house,
            cookie
        }
        .get("/ui")
        .await
        .status,
        200
    );

    let keys = house.app.keys.public(NOW);
    let relay = Verifier::new(Audience::Relay(relay()), &keys).unwrap();
    assert!(relay.verify(native.token.expose(), NOW).is_ok());
    assert!(relay.verify(token, NOW).is_err());
    // The header of programs opens no page, and the cookie nothing for programs.
    assert_eq!(
        house.get("/ui", person.session()).await.status,
        StatusCode::SEE_OTHER
    );
    assert_eq!(alice.get("/v1/keys").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_page_answers_for_its_own_account_only() {
    let house = House::open().await;
    let theirs = house.person("alice").await;
    house.token(theirs.key(), agent_request()).await;
    house.person("mallory").await;
    let mallory = Browser::of(&house, "mallory").await;
    let revoke = format!("/ui/keys/{}/revoke", theirs.key.id);
    let agent = format!("/ui/agents/{}", AgentId([4; 32]));

    for answer in [
        mallory.get(&revoke).await,
        mallory.post(&revoke, "").await,
        mallory.post(&agent, "disabled=true").await,
        // As what nobody has.
        mallory.get("/ui/keys/00000000/revoke").await,
    ] {
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert!(answer.body.contains("There is nothing here"));
    }
    for path in [
        "/ui",
        "/ui/keys",
        "/ui/agents",
        "/ui/usage",
        "/ui/usage/2026-09",
    ] {
        let page = mallory.get(path).await;
        assert_eq!(page.status, StatusCode::OK);
        let id = AgentId([4; 32]).to_string();
        for foreign in [theirs.key.id.as_str(), "alice", &id] {
            assert!(!page.body.contains(foreign), "{path}: {foreign}");
        }
    }
    assert_eq!(house.token(theirs.key(), agent_request()).await.status, 200);
}

#[tokio::test]
async fn a_key_is_shown_once_does_what_was_ticked_and_ends_when_it_was_told() {
    let house = House::open().await;
    let person = house.person("alice").await;
    let alice = Browser::of(&house, "alice").await;

    let made = alice.post("/ui/keys", "name=ci&relay=on&days=30").await;

    assert_eq!(made.status, StatusCode::CREATED);
    assert!(made.headers.get("location").is_none());
    let at = made.body.find("sk_live_").unwrap();
    let secret = made.body.split_at(at).1.split('<').next().unwrap();
    assert_eq!(house.token(secret, agent_request()).await.status, 200);
    assert_eq!(
        house.token(secret, json!({})).await.status,
        403,
        "it may no more than that"
    );
    let keys: Keys = house.get("/v1/keys", person.session()).await.read();
    let key = keys.keys.iter().find(|key| key.name == "ci").unwrap();
    assert_eq!(key.expires_at.as_deref(), Some("2026-10-21T14:13:20.000Z"));
    let list = alice.get("/ui/keys").await;
    assert!(list.body.contains(&key.id) && !list.body.contains(secret));

    // Looking at the page that asks ends nothing; its form does.
    let revoke = format!("/ui/keys/{}/revoke", key.id);
    assert!(alice.get(&revoke).await.body.contains("Revoke this key"));
    assert_eq!(house.token(secret, agent_request()).await.status, 200);
    let done = alice.post(&revoke, "").await;
    assert_eq!(done.status, StatusCode::SEE_OTHER);
    assert_eq!(done.headers["location"], "/ui/keys");
    assert_eq!(house.token(secret, agent_request()).await.status, 401);
    assert!(alice.get(&revoke).await.body.contains("It was revoked at"));
    assert!(alice.get("/ui/keys").await.body.contains("revoked <time"));

    for form in [
        "name=&relay=on&days=0",
        "name=x&days=0",
        "name=x&relay=on&days=-1",
        "name=x&relay=on&days=99999999999999",
        "name=x&relay=off&days=0",
        "name=x&relay=on",
        "name=x&relay=on&days=0&account_id=acc_0",
        "name=x&name=y&relay=on&days=0",
        "name=%ff%00&relay=on&days=0",
    ] {
        let refused = alice.post("/ui/keys", form).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{form}");
        assert!(refused.body.contains("Back to API keys"));
    }
}

#[tokio::test]
async fn what_people_call_things_is_text_and_no_markup() {
    let house = House::open().await;
    let person = house.person("alice").await;
    let name = "</code><script>alert('1')</script>\"><img src=x onerror=1>&amp;";
    let made = house
        .post("/v1/keys", person.session(), json!({"name": name}))
        .await;
    let id = made.read::<NewKey>().id;
    let alice = Browser::of(&house, "alice").await;

    for path in ["/ui/keys".to_owned(), format!("/ui/keys/{id}/revoke")] {
        let page = alice.get(&path).await;
        assert!(
            !page.body.contains("<script") && !page.body.contains("<img"),
            "{path}"
        );
        assert!(
            page.body
                .contains("&lt;script&gt;alert('1')&lt;/script&gt;&quot;&gt;&lt;img")
        );
    }
    // What comes back from a form, too.
    let mut nobody = Browser::new(&house);
    let again = nobody.sign_in("%22%3E%3Cscript%3E", "wrong one!").await;
    assert_eq!(again.status, StatusCode::FORBIDDEN);
    assert!(again.body.contains("&quot;&gt;&lt;script&gt;@example.org"));
    assert!(!again.body.contains("<script"));
    assert!(
        !nobody
            .get("/ui/sign-in?note=%3Cscript%3E")
            .await
            .body
            .contains("script")
    );
}

/// The same limits, hashes and answers as `POST /v1/sessions`.
#[tokio::test]
async fn signing_in_and_up_tell_nobody_who_is_there_and_are_limited() {
    let house = House::open_with(|config| config.wrong_passwords_per_hour_max = 2).await;
    house.person("alice").await;
    let mut nobody = Browser::new(&house);
    let runs = house.app.hasher.runs();

    let wrong = nobody.sign_in("alice", "wrong one!").await;
    let unknown = nobody.sign_in("carol", "wrong one!").await;
    assert_eq!(wrong.status, unknown.status);
    assert_eq!(wrong.body, unknown.body.replace("carol", "alice"));
    let mut signed_up = Vec::new();
    for name in ["alice", "dave"] {
        let form = format!("email={name}%40example.org&name=&password=another+password");
        signed_up.push(
            nobody
                .send(Method::POST, "/ui/sign-up", &[SAME], &form)
                .await,
        );
    }
    for answer in &signed_up {
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        assert_eq!(answer.headers["location"], "/ui/sign-in?note=signed-up");
    }
    assert_eq!(house.app.hasher.runs(), runs + 4, "each was hashed once");
    nobody.sign_in("dave", "another password").await;
    assert_eq!(nobody.get("/ui").await.status, StatusCode::OK);

    nobody.sign_in("alice", "wrong one!").await;
    let limited = nobody.sign_in("alice", PASSWORD).await;
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(limited.headers.contains_key("retry-after"));
    assert!(limited.body.contains("Too often"));
}

#[tokio::test]
async fn an_agent_is_shut_out_and_let_in_again() {
    let house = House::open().await;
    let person = house.person("alice").await;
    house.token(person.key(), agent_request()).await;
    let alice = Browser::of(&house, "alice").await;
    let id = AgentId([4; 32]).to_string();
    let page = alice.get("/ui/agents").await;
    assert!(page.body.contains(&id) && page.body.contains(">Shut out</button>"));
    let path = format!("/ui/agents/{id}");

    for (form, status, button) in [
        ("disabled=true", 403, ">Let in</button>"),
        ("disabled=false", 200, ">Shut out</button>"),
    ] {
        let done = alice.post(&path, form).await;
        assert_eq!(done.status, StatusCode::SEE_OTHER);
        assert_eq!(
            house.token(person.key(), agent_request()).await.status,
            status
        );
        assert!(alice.get("/ui/agents").await.body.contains(button));
    }
    let odd = alice.post(&path, "disabled=perhaps").await;
    assert_eq!(odd.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn usage_is_shown_by_months_and_keys_with_what_the_plan_leaves() {
    let house = House::open_with(|config| {
        let free = crate::plans::Bounds {
            messages_max: Some(2_000),
            bytes_max: None,
        };
        config.plans.insert("free".into(), free);
        config.plan = "free".into();
    })
    .await;
    let person = house.person("alice").await;
    house.token(person.key(), agent_request()).await;
    let entry = UsageEntry {
        account_id: person.session.account_id,
        key_id: person.key.id.parse().ok(),
        month: Month::of(NOW),
        messages: 1_234,
        bytes: 5_600_000,
        delivered: 77,
        connected_ms: 3_720_000,
    };
    let entries = vec![entry];
    house
        .app
        .store
        .take_report(relay(), 1, entries, NOW)
        .await
        .unwrap();
    let alice = Browser::of(&house, "alice").await;

    let overview = alice.get("/ui").await.body;
    let usage = alice.get("/ui/usage").await.body;
    let month = alice.get("/ui/usage/2026-09").await.body;

    let numbers = [
        "1\u{202f}234",
        "5.6\u{a0}MB",
        ">77<",
        "1\u{a0}h 2\u{a0}min",
        ">1<",
    ];
    for (page, shown) in [
        ("overview", &overview),
        ("usage", &usage),
        ("month", &month),
    ] {
        for number in numbers {
            assert!(shown.contains(number), "{page}: {number}");
        }
    }
    for page in [&overview, &usage] {
        assert!(
            page.contains("1\u{202f}234 of 2\u{202f}000 used, 766 left"),
            "{page}"
        );
        assert!(page.contains("<progress id=\"left-messages\" value=\"1234\" max=\"2000\">"));
    }
    assert_eq!(usage.matches("<svg").count(), 5);
    assert_eq!(usage.matches("<title id=").count(), 5);
    assert!(usage.contains("href=\"/ui/usage/2026-09\""));
    assert!(month.contains(&person.key.id));
    assert_eq!(
        alice.get("/ui/usage/2026-13").await.status,
        StatusCode::NOT_FOUND
    );
    let empty = alice.get("/ui/usage/2020-01").await;
    assert!(empty.body.contains("Nothing was counted in this month"));
}

#[tokio::test]
async fn a_full_house_is_told_by_a_page() {
    let house = House::open_with(|config| config.requests_max = 1).await;
    let taken = house.app.places.try_acquire().unwrap();

    let refused = Browser::new(&house).get("/ui").await;

    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.body.starts_with("<!DOCTYPE html>") && refused.body.contains("Not now"));
    assert_eq!(refused.headers["retry-after"], "1");
    drop(taken);
}

#[tokio::test]
async fn switched_off_there_is_no_dashboard() {
    let house = House::open_with(|config| config.ui = false).await;
    for path in paths() {
        let answer = house.get(&path, "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (404, Code::NotFound),
            "{path}"
        );
    }
}

/// Everything that a form could change.
async fn state(house: &House, person: &Person) -> (Keys, Agents) {
    let keys = house.get("/v1/keys", person.session()).await.read();
    let agents = house.get("/v1/agents", person.session()).await.read();
    (keys, agents)
}

#[tokio::test]
async fn what_a_relay_holds_is_shown_to_its_owner_and_to_nobody_else() {
    let house = House::open().await;
    let person = house.person("alice").await;
    house.person("bob").await;
    let [alice, bob] = [
        Browser::of(&house, "alice").await,
        Browser::of(&house, "bob").await,
    ];
    let silent = alice.get("/ui/channels").await;
    assert_eq!(silent.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(silent.body.contains("does not answer"), "{}", silent.body);
    let relays = alice.get("/ui/relays").await;
    assert!(relays.body.contains("not heard"), "{}", relays.body);

    let _relay = house.with_relay(relay_secret(), one_channel_each(60)).await;

    let id = channel(&person.session.account_id).to_string();
    let list = alice.get("/ui/channels").await;
    assert_eq!(list.status, StatusCode::OK, "{}", list.body);
    assert!(list.body.contains(&format!("/ui/channels/{id}")));
    let records = alice.get(&format!("/ui/channels/{id}")).await;
    assert_eq!(records.body.matches("<td>message</td>").count(), 50);
    assert!(records.body.contains("?after=50"), "{}", records.body);
    let rest = alice.get(&format!("/ui/channels/{id}?after=50")).await;
    assert_eq!(rest.body.matches("<td>message</td>").count(), 10);
    assert!(!rest.body.contains("More records"), "{}", rest.body);
    let his = bob.get(&format!("/ui/channels/{id}")).await;
    assert_eq!(his.status, StatusCode::NOT_FOUND);
    assert!(!bob.get("/ui/channels").await.body.contains(&id));
    let relays = alice.get("/ui/relays").await;
    assert!(relays.body.contains("0.1.0"), "{}", relays.body);
}
