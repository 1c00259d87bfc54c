//! The API server, as an agent and the command line need it: tokens first of all.
//!
//! Which token opens which connection, and when it is renewed, is `link.rs`'s matter.

use std::{fmt, fs, path::Path, time::Duration};

use reqwest::{Method, StatusCode, Url, redirect};
use serde::{Serialize, de::DeserializeOwned};
use skytale_wire::{
    http::{
        Account as AccountView, Agents, ChangePassword, Code, DeleteAccount, HeldChannels,
        HeldRecords, Keys, MakeKey, NewKey, Problem, RelayAt, Relays, RotateKey, Secret, Session,
        SetAgent, SignIn, SignUp, SignedUp, TokenAnswer, TokenRequest, Usage,
    },
    id::{AgentId, ChannelId, RelayKey, TransportKey},
    month::Month,
    token::{AccountId, SlimPatterns},
};
use zeroize::Zeroizing;

use crate::error::Error;

/// A connection to one API server, with or without a key for it.
pub struct Account {
    http: reqwest::Client,
    url: Url,
    key: Option<Secret>,
}

impl Account {
    /// Nothing is asked of the server yet. `ca_file` holds authorities beside the system's own.
    pub fn new(
        api_url: &str,
        api_key: Option<Secret>,
        ca_file: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let url = Url::parse(api_url.trim_end_matches('/')).map_err(|_| {
            Error::misuse(
                "the API server's URL cannot be read: write it like https://api.example.org",
            )
        })?;
        let local = is_loopback(&url);
        match url.scheme() {
            "https" => {}
            "http" if local => {}
            _ => {
                return Err(Error::misuse(
                    "the API server's URL must begin with https://: over http:// the API key would cross the network in clear (only this machine's own addresses may)",
                ));
            }
        }
        // Whoever linked us may have chosen a provider already; then that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout)
            // A key must not follow to where a redirect points.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("skytale-sdk/", env!("CARGO_PKG_VERSION")));
        if local {
            builder = builder.no_proxy();
        }
        if url.scheme() == "http" {
            // Works on machines that have no certificates at all.
            builder = builder.tls_certs_only([]);
        } else if let Some(path) = ca_file {
            builder = builder.tls_certs_merge(authorities(path)?);
        }
        let http = builder.build().map_err(|_| {
            Error::misuse("TLS cannot be set up: this machine has no certificate authorities; install its ca-certificates package or name a CA file")
        })?;
        Ok(Self {
            http,
            url,
            key: api_key,
        })
    }

    /// Whether there is a key that buys tokens.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// A token for this agent's connection to that relay.
    pub async fn token(
        &self,
        agent: AgentId,
        transport: TransportKey,
        audience: RelayKey,
    ) -> Result<TokenAnswer, Error> {
        let request = for_agent(agent, transport, audience);
        self.call(Method::POST, "v1/tokens", self.bearer()?, Some(&request))
            .await
    }

    /// The same, but `None` when this server issues no tokens for that relay: then the agent is a
    /// guest there.
    pub(crate) async fn token_if_ours(
        &self,
        agent: AgentId,
        transport: TransportKey,
        audience: RelayKey,
    ) -> Result<Option<TokenAnswer>, Error> {
        let request = for_agent(agent, transport, audience);
        match self
            .ask(
                Method::POST,
                "v1/tokens",
                Some(self.bearer()?),
                Some(&request),
            )
            .await?
        {
            Ok(body) => read(&body).map(Some),
            Err(problem) if problem.code == Code::UnknownAudience => Ok(None),
            Err(problem) => Err(refused(&problem)),
        }
    }

    /// A token with which a SLIM agent may use these names at that relay. It is a bearer token:
    /// whoever has it can use it until it ends. An organisation belongs to the account that first
    /// uses it at the relay, which the API server does not know.
    pub async fn slim_token(
        &self,
        audience: RelayKey,
        patterns: &SlimPatterns,
    ) -> Result<TokenAnswer, Error> {
        let request = TokenRequest {
            audience: Some(audience),
            slim: Some(patterns.texts().map(str::to_owned).collect()),
            ..TokenRequest::default()
        };
        self.call(Method::POST, "v1/tokens", self.bearer()?, Some(&request))
            .await
    }

    /// A token for calls about the account, such as `skytale token` prints.
    pub async fn account_token(&self) -> Result<TokenAnswer, Error> {
        self.call(
            Method::POST,
            "v1/tokens",
            self.bearer()?,
            Some(&TokenRequest::default()),
        )
        .await
    }

    /// The relays that take this server's tokens.
    pub async fn relays(&self) -> Result<Vec<RelayAt>, Error> {
        Ok(self.account_token().await?.relays)
    }

    /// Opens an account. The answer is the same when the address has one already.
    pub async fn sign_up(
        &self,
        email: &str,
        password: Secret,
        name: Option<&str>,
    ) -> Result<SignedUp, Error> {
        let body = SignUp {
            email: email.to_owned(),
            password,
            name: name.map(str::to_owned),
        };
        self.call(Method::POST, "v1/accounts", None, Some(&body))
            .await
    }

    /// A quarter of an hour in which keys can be made.
    pub async fn sign_in(&self, email: &str, password: Secret) -> Result<Session, Error> {
        let body = SignIn {
            email: email.to_owned(),
            password,
        };
        self.call(Method::POST, "v1/sessions", None, Some(&body))
            .await
    }

    /// Makes the first key, with a session instead of a key.
    pub async fn first_key(&self, session: &Session, name: &str) -> Result<NewKey, Error> {
        let body = MakeKey {
            name: name.to_owned(),
            ..MakeKey::default()
        };
        let path = format!("v1/accounts/{}/keys", account_path(session.account_id));
        self.call(Method::POST, &path, Some(&session.token), Some(&body))
            .await
    }

    /// Whose key this is.
    pub async fn account(&self) -> Result<AccountView, Error> {
        self.call(Method::GET, "v1/accounts/me", self.bearer()?, NOTHING)
            .await
    }

    /// One page of keys, oldest first; `after` is the `next` of the page before.
    pub async fn keys(&self, after: Option<&str>) -> Result<Keys, Error> {
        let mut path = "v1/keys".to_owned();
        if let Some(after) = after {
            let query: String = url_encoded(after);
            path = format!("{path}?after={query}");
        }
        self.call(Method::GET, &path, self.bearer()?, NOTHING).await
    }

    /// Makes another key. It is shown this once.
    pub async fn make_key(&self, wish: &MakeKey) -> Result<NewKey, Error> {
        self.call(Method::POST, "v1/keys", self.bearer()?, Some(wish))
            .await
    }

    /// Makes a key in the place of another one, which goes on for `overlap` or is revoked at once.
    pub async fn rotate_key(&self, id: &str, overlap: Duration) -> Result<NewKey, Error> {
        let path = format!("v1/keys/{}/rotation", url_encoded(id));
        let body = RotateKey {
            overlap_s: overlap.as_secs(),
        };
        self.call(Method::POST, &path, self.bearer()?, Some(&body))
            .await
    }

    /// From now on the key of this public id buys nothing.
    pub async fn revoke_key(&self, id: &str) -> Result<(), Error> {
        let path = format!("v1/keys/{}", url_encoded(id));
        self.tell(Method::DELETE, &path, self.bearer()?, NOTHING)
            .await
    }

    /// One page of the agents for which the account has bought tokens; `after` is the `next` of the
    /// page before.
    pub async fn agents(&self, after: Option<AgentId>) -> Result<Agents, Error> {
        let path = match after {
            Some(after) => format!("v1/agents?after={after}"),
            None => "v1/agents".to_owned(),
        };
        self.call(Method::GET, &path, self.bearer()?, NOTHING).await
    }

    /// Shuts an agent of the account out, or lets it in again. Relays close its connections within
    /// seconds. It stays a member of its channels: those remove it.
    pub async fn set_agent_disabled(&self, id: AgentId, disabled: bool) -> Result<(), Error> {
        let path = format!("v1/agents/{id}");
        let body = SetAgent { disabled };
        self.tell(Method::PUT, &path, self.bearer()?, Some(&body))
            .await
    }

    /// Gives the account another password. All sessions end.
    pub async fn change_password(
        &self,
        session: &Session,
        password: Secret,
        new_password: Secret,
    ) -> Result<(), Error> {
        let path = "v1/accounts/me/password";
        let body = ChangePassword {
            password,
            new_password,
        };
        self.tell(Method::PUT, path, &session.token, Some(&body))
            .await
    }

    /// Ends the account, its keys and what they let in. There is no way back.
    pub async fn delete(&self, session: &Session, password: Secret) -> Result<(), Error> {
        let path = "v1/accounts/me/deletion";
        let body = DeleteAccount { password };
        self.tell(Method::POST, path, &session.token, Some(&body))
            .await
    }

    /// What the account has used: every month, the newest first, or one with each of its keys.
    pub async fn usage(&self, month: Option<Month>) -> Result<Usage, Error> {
        let path = match month {
            Some(month) => format!("v1/usage?month={month}"),
            None => "v1/usage".to_owned(),
        };
        self.call(Method::GET, &path, self.bearer()?, NOTHING).await
    }

    /// The relays of the server, and how they are.
    pub async fn relay_states(&self) -> Result<Relays, Error> {
        self.call(Method::GET, "v1/relays", self.bearer()?, NOTHING)
            .await
    }

    /// One page of the channels that the account pays for, as relays hold them; `after` is the `next`
    /// of the page before. Unlike [`crate::Channel`]s they have no names: relays know none.
    pub async fn held_channels(&self, after: Option<ChannelId>) -> Result<HeldChannels, Error> {
        let path = match after {
            Some(after) => format!("v1/channels?after={after}"),
            None => "v1/channels".to_owned(),
        };
        self.call(Method::GET, &path, self.bearer()?, NOTHING).await
    }

    /// One page of what a relay holds of such a channel, behind a place.
    pub async fn held_records(&self, channel: ChannelId, after: u64) -> Result<HeldRecords, Error> {
        let path = format!("v1/channels/{channel}/records?limit=100&after={after}");
        self.call(Method::GET, &path, self.bearer()?, NOTHING).await
    }

    /// Whether the server answers and is ready, for `doctor`.
    pub async fn is_ready(&self) -> Result<bool, Error> {
        Ok(self
            .ask(Method::GET, "readyz", None, NOTHING)
            .await?
            .is_ok())
    }

    fn bearer(&self) -> Result<&Secret, Error> {
        self.key.as_ref().ok_or_else(|| {
            Error::misuse("this needs an API key: set SKYTALE_API_KEY, or run `skytale login`")
        })
    }

    async fn call<'a, B: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        bearer: impl Into<Option<&'a Secret>>,
        body: Option<&B>,
    ) -> Result<A, Error> {
        match self.ask(method, path, bearer.into(), body).await? {
            Ok(body) => read(&body),
            Err(problem) => Err(refused(&problem)),
        }
    }

    /// A call whose answer says nothing.
    async fn tell<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        bearer: &Secret,
        body: Option<&B>,
    ) -> Result<(), Error> {
        match self.ask(method, path, Some(bearer), body).await? {
            Ok(_) => Ok(()),
            Err(problem) => Err(refused(&problem)),
        }
    }

    /// One request. The inner result is the server's; its answers may hold secrets.
    async fn ask<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&Secret>,
        body: Option<&B>,
    ) -> Result<Result<Zeroizing<Vec<u8>>, Problem>, Error> {
        let url = format!("{}/{path}", self.url.as_str().trim_end_matches('/'));
        let mut request = self.http.request(method, url);
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer.expose());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(|error| no_answer(&error))?;
        let status = response.status();
        let mut body = Zeroizing::new(Vec::new());
        while let Some(piece) = response.chunk().await.map_err(|error| no_answer(&error))? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(Error::PeerMisbehaved(
                    "the API server's answer has no end".into(),
                ));
            }
            body.extend_from_slice(&piece);
        }
        if status.is_success() {
            return Ok(Ok(body));
        }
        serde_json::from_slice(&body)
            .map(Err)
            .map_err(|_| not_a_problem(status))
    }
}

/// Says where, not with which key.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("url", &self.url.as_str())
            .field("has_key", &self.has_key())
            .finish_non_exhaustive()
    }
}

fn for_agent(agent: AgentId, transport: TransportKey, audience: RelayKey) -> TokenRequest {
    TokenRequest {
        agent_id: Some(agent),
        transport_key: Some(transport),
        audience: Some(audience),
        slim: None,
    }
}

fn read<A: DeserializeOwned>(body: &[u8]) -> Result<A, Error> {
    // The parser's own words would quote the body, which may hold a token.
    serde_json::from_slice(body).map_err(|_| {
        Error::PeerMisbehaved(
            "the API server's answer cannot be read: is it a Skytale API server of this version?"
                .into(),
        )
    })
}

/// Sorts the server's words by what the caller can do.
fn refused(problem: &Problem) -> Error {
    let text = match problem.retry_after_s {
        Some(seconds) if problem.code == Code::QuotaExceeded => format!(
            "the API server says: {} (in {})",
            problem.detail,
            in_words(seconds)
        ),
        Some(seconds) => format!(
            "the API server says: {} (try again in {seconds} s)",
            problem.detail
        ),
        None => format!("the API server says: {}", problem.detail),
    };
    match problem.code {
        // Its own words are for who writes requests.
        Code::Unauthenticated => Error::Unauthorized(format!(
            "the API server does not take this API key ({}): set SKYTALE_API_KEY to one that counts, which `skytale keys create` makes",
            problem.detail
        )),
        Code::WrongPassword | Code::Denied | Code::AgentDisabled => Error::Unauthorized(text),
        Code::QuotaExceeded => Error::QuotaExceeded(text),
        Code::NotFound => Error::NotFound(text),
        Code::Timeout
        | Code::TooManyRequests
        | Code::Internal
        | Code::Busy
        | Code::Unavailable
        | Code::RelaySilent
        | Code::UnderWay => Error::Unreachable(text),
        Code::BadRequest
        | Code::BadJson
        | Code::MethodNotAllowed
        | Code::TooManyKeys
        | Code::TooLarge
        | Code::WrongMediaType
        | Code::BadBody
        | Code::UnknownAudience
        | Code::AlreadyDone
        | Code::OutcomeUnknown
        | Code::OtherRequest
        | Code::BadPattern => Error::Misuse(text),
        // A word of tomorrow: the status still says whose turn it is.
        Code::Unknown | _ if problem.status >= 500 => Error::Unreachable(text),
        Code::Unknown | _ => Error::Misuse(text),
    }
}

/// A long span, as people say it, and never too short.
fn in_words(seconds: u64) -> String {
    let hours = seconds.div_ceil(3_600);
    match hours {
        0..=1 => "an hour at most".to_owned(),
        2..=48 => format!("{hours} hours"),
        _ => format!("{} days", hours.div_ceil(24)),
    }
}

fn no_answer(error: &reqwest::Error) -> Error {
    Error::unreachable(if error.is_timeout() {
        "the API server does not answer in time: `skytale doctor` says more"
    } else {
        "the API server cannot be reached: check SKYTALE_API_URL, and that the server runs (`skytale doctor`)"
    })
}

fn not_a_problem(status: StatusCode) -> Error {
    if status.is_server_error() {
        return Error::unreachable(format!(
            "the API server, or a proxy before it, answers {}",
            status.as_u16()
        ));
    }
    Error::misuse(format!(
        "what answers at the API server's URL is not one (status {}): check SKYTALE_API_URL",
        status.as_u16()
    ))
}

fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>, Error> {
    let bad = || Error::misuse("the CA file cannot be read: it must hold certificates in PEM");
    let pem = fs::read(path).map_err(|_| bad())?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| bad())?;
    if found.is_empty() {
        Err(bad())
    } else {
        Ok(found)
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || bare
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    })
}

fn account_path(id: AccountId) -> String {
    id.to_string()
}

/// Everything but letters and digits as `%xx`: names from users end up in paths.
fn url_encoded(text: &str) -> String {
    use fmt::Write as _;
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    encoded
}

const NOTHING: Option<&()> = None;
/// Room for a page of keys or many months of usage.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Answers one request with these bytes and gives back what was asked.
    async fn served(answer: String) -> (Account, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while !String::from_utf8_lossy(&request).ends_with('}') {
                let read = stream.read(&mut piece).await.unwrap();
                request.extend_from_slice(&piece[..read]);
                assert!(read > 0);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        let key = Secret::new("sk_live_needle".into());
        let account = Account::new(&url, Some(key), None, Duration::from_secs(10)).unwrap();
        (account, asked)
    }

    fn http(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    fn problem(status: u16, code: &str) -> String {
        http(
            &format!("{status} No"),
            &format!(
                r#"{{"type":"about:blank","title":"No","status":{status},"code":"{code}","detail":"because","request_id":"req_1"}}"#
            ),
        )
    }

    async fn asks_for_a_token(answer: String) -> (Result<Option<TokenAnswer>, Error>, String) {
        let (account, asked) = served(answer).await;
        let account = Arc::new(account);
        let result = account
            .token_if_ours(AgentId([1; 32]), TransportKey([2; 32]), RelayKey([3; 32]))
            .await;
        (result, asked.await.unwrap())
    }

    #[tokio::test]
    async fn a_token_is_bought_for_one_agent_one_connection_and_one_relay() {
        let body = r#"{"token":"jwt","expires_at":"2026-11-21T00:00:00Z","expires_in_s":3600,"relays":[]}"#;

        let (answer, asked) = asks_for_a_token(http("200 OK", body)).await;

        let answer = answer.unwrap().unwrap();
        assert_eq!((answer.token.expose(), answer.expires_in_s), ("jwt", 3600));
        assert!(asked.starts_with("POST /v1/tokens HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("authorization: Bearer sk_live_needle\r\n"));
        assert!(asked.contains(&format!("\"agent_id\":\"{}\"", AgentId([1; 32]))));
        assert!(asked.contains(&format!("\"transport_key\":\"{}\"", "02".repeat(32))));
        assert!(asked.contains(&format!("\"audience\":\"{}\"", "03".repeat(32))));
    }

    #[tokio::test]
    async fn a_token_for_slim_is_bought_for_names_and_no_key() {
        let body = r#"{"token":"jwt","expires_at":"2026-11-21T00:00:00Z","expires_in_s":3600,"relays":[]}"#;
        let (account, asked) = served(http("200 OK", body)).await;
        let patterns = ["org/*", "acme/ops/planner"].map(str::to_owned);
        let patterns = SlimPatterns::parse(&patterns).unwrap();

        let answer = account.slim_token(RelayKey([3; 32]), &patterns).await;

        assert_eq!(answer.unwrap().token.expose(), "jwt");
        let relay = "03".repeat(32);
        let asked = asked.await.unwrap();
        let (_, body) = asked.split_once("\r\n\r\n").unwrap();
        assert_eq!(
            body,
            format!(r#"{{"audience":"{relay}","slim":["org/*","acme/ops/planner"]}}"#)
        );
    }

    #[tokio::test]
    async fn a_relay_of_somebody_else_makes_us_a_guest() {
        let (answer, _) = asks_for_a_token(problem(422, "unknown_audience")).await;

        assert!(matches!(answer, Ok(None)));
    }

    #[tokio::test]
    async fn refusals_say_what_can_be_done() {
        for (status, code, expected) in [
            (401, "unauthenticated", "unauthorized"),
            (429, "too_many_requests", "unreachable"),
            (422, "bad_body", "misuse"),
            (422, "bad_pattern", "misuse"),
            (403, "agent_disabled", "unauthorized"),
            (403, "quota_exceeded", "quota_exceeded"),
            (503, "of_tomorrow", "unreachable"),
            (418, "of_tomorrow", "misuse"),
        ] {
            let (answer, _) = asks_for_a_token(problem(status, code)).await;

            let error = answer.unwrap_err();
            assert_eq!(error.code(), expected, "{code}");
            assert!(error.to_string().contains("because"));
        }
    }

    #[tokio::test]
    async fn an_unreadable_answer_is_not_quoted() {
        let (answer, _) = asks_for_a_token(http("200 OK", r#"{"token":"secret-needle"}"#)).await;
        let error = answer.unwrap_err();
        assert_eq!(error.code(), "peer_misbehaved");
        assert!(!format!("{error} {error:?}").contains("needle"));

        let (answer, _) =
            asks_for_a_token(http("302 Found\r\nlocation: http://127.0.0.1:1/", "")).await;
        assert_eq!(
            answer.unwrap_err().code(),
            "misuse",
            "a redirect is not followed"
        );
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let key = Secret::new("sk_live_needle".into());
        let account = Account::new(&url, Some(key), None, Duration::from_secs(10)).unwrap();

        let error = account.account_token().await.unwrap_err();

        assert_eq!(error.code(), "unreachable");
        assert!(!format!("{error:?} {account:?}").contains("needle"));
    }

    #[test]
    fn a_key_does_not_cross_the_network_in_clear() {
        let new = |url: &str| Account::new(url, None, None, Duration::from_secs(1));

        for bad in [
            "http://api.example.org",
            "ftp://localhost",
            "localhost:7700",
            "",
        ] {
            assert!(matches!(new(bad), Err(Error::Misuse(_))), "{bad}");
        }
        for good in [
            "http://localhost:7700/",
            "http://127.0.0.1:1",
            "http://[::1]:7700",
        ] {
            new(good).unwrap();
        }
    }

    #[test]
    fn an_id_from_a_user_stays_one_part_of_the_path() {
        assert_eq!(url_encoded("../a b?c"), "..%2Fa%20b%3Fc");
    }
}
