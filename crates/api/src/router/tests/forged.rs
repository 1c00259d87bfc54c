//! A4 to A8: tokens that are forged, borrowed or bent, as they come through the door. That the
//! verifier itself tells them apart is held in the wire crate; here it is that the server asks it.

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signer as _, SigningKey};

use super::*;

/// What forgers here have that no forger has: the server's own key.
struct Forge {
    key: SigningKey,
    header: Value,
    claims: Value,
}

impl Forge {
    /// Begins with a good token for the account.
    async fn of(house: &House, person: &Person) -> Self {
        let seed = std::fs::read_to_string(house.dir.path().join("keys/signing.key")).unwrap();
        let seed = data_encoding::HEXLOWER
            .decode(seed.trim().as_bytes())
            .unwrap();
        let bought: TokenAnswer = house.token(person.key(), json!({})).await.read();
        let mut parts = bought.token.expose().split('.');
        let mut part = || {
            let bytes = BASE64URL_NOPAD.decode(parts.next().unwrap().as_bytes());
            serde_json::from_slice(&bytes.unwrap()).unwrap()
        };
        Self {
            key: SigningKey::from_bytes(&seed.try_into().unwrap()),
            header: part(),
            claims: part(),
        }
    }

    fn kid(&self) -> &str {
        self.header["kid"].as_str().unwrap()
    }

    /// Well signed, whatever it says.
    fn signed(&self, header: &str, claims: &str) -> String {
        let message = message(header, claims);
        let signature = self.key.sign(message.as_bytes()).to_bytes();
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }

    fn with_header(&self, header: &Value) -> String {
        self.signed(&header.to_string(), &self.claims.to_string())
    }

    fn with_claims(&self, claims: &Value) -> String {
        self.signed(&self.header.to_string(), &claims.to_string())
    }

    fn good(&self) -> String {
        self.with_claims(&self.claims)
    }
}

fn message(header: &str, claims: &str) -> String {
    format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(claims.as_bytes())
    )
}

/// A server that counts nobody out, somebody in it, and their token to bend.
async fn forge() -> (House, Person, Forge) {
    let house = House::open_with(|config| config.unproven_per_minute_max = 100_000).await;
    let alice = house.person("alice").await;
    let forge = Forge::of(&house, &alice).await;
    assert_eq!(
        house.get("/v1/accounts/me", &forge.good()).await.status,
        200
    );
    (house, alice, forge)
}

async fn refused(house: &House, token: &str, why: &str) {
    for path in ["/v1/accounts/me", "/v1/usage"] {
        let answer = house.get(path, token).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (401, Code::Unauthenticated),
            "{why}"
        );
    }
}

/// A4.
#[tokio::test]
async fn another_algorithm_opens_nothing() {
    let (house, _, forge) = forge().await;
    let claims = forge.claims.to_string();
    for alg in [
        json!("none"),
        json!("None"),
        json!("NONE"),
        json!(""),
        json!("HS256"),
        json!("HS512"),
        json!("RS256"),
        json!("ES256"),
        json!("PS256"),
        json!("eddsa"),
        json!("Ed25519"),
        json!(["EdDSA"]),
        json!({"EdDSA": 1}),
        json!(null),
        json!(0),
    ] {
        let mut header = forge.header.clone();
        header["alg"] = alg.clone();
        let token = forge.with_header(&header);
        refused(&house, &token, &format!("signed as {alg}")).await;
        let message = message(&header.to_string(), &claims);
        refused(&house, &format!("{message}."), &format!("{alg}, unsigned")).await;
        refused(&house, &message, &format!("{alg}, two parts")).await;
        // HMAC by what everybody can read: the public key as a shared secret.
        let public = forge.key.verifying_key().to_bytes();
        let mac = BASE64URL_NOPAD.encode(&hmac_sha256(&public, message.as_bytes()));
        refused(&house, &format!("{message}.{mac}"), &format!("{alg}, MAC")).await;
    }
    let kid = forge.kid();
    for header in [
        format!(r#"{{"typ":"JWT","kid":"{kid}"}}"#),
        format!(r#"{{"typ":"JWT","alg":"none","alg":"EdDSA","kid":"{kid}"}}"#),
        format!(r#"{{"typ":"JWT","alg":"EdDSA","alg":"none","kid":"{kid}"}}"#),
        format!(r#"{{"typ":"JWT","alg":"EdDSA","kid":"x","kid":"{kid}"}}"#),
        "[]".to_owned(),
        "\"EdDSA\"".to_owned(),
        String::new(),
    ] {
        refused(&house, &forge.signed(&header, &claims), &header).await;
    }
}

/// A5.
#[tokio::test]
async fn a_header_that_says_where_its_key_is_opens_nothing() {
    let (house, _, forge) = forge().await;
    let own = SigningKey::from_bytes(&[7; 32]);
    let jwk = json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "x": BASE64URL_NOPAD.encode(&own.verifying_key().to_bytes()),
    });
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!("http://127.0.0.1:9/keys")),
        ("x5u", json!("file:///etc/passwd")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
    ] {
        let mut header = forge.header.clone();
        header[name] = value;
        refused(&house, &forge.with_header(&header), name).await;
        let stranger = Forge {
            key: own.clone(),
            header: header.clone(),
            claims: forge.claims.clone(),
        };
        let own_word = format!("{name}, by its own key");
        refused(&house, &stranger.with_header(&header), &own_word).await;
    }
    for typ in [json!("at+jwt"), json!("JWS"), json!(1), json!(null)] {
        let mut header = forge.header.clone();
        header["typ"] = typ.clone();
        refused(&house, &forge.with_header(&header), &typ.to_string()).await;
    }
}

#[tokio::test]
async fn an_odd_or_retired_kid_opens_nothing() {
    let (house, _, forge) = forge().await;
    for kid in [
        json!("../../keys/signing.key"),
        json!("/dev/null"),
        json!("' OR 1=1 --"),
        json!("x' UNION SELECT hash FROM api_keys --"),
        json!("\0"),
        json!(format!("{}\0", forge.kid())),
        json!("k".repeat(10_240)),
        json!("unknown"),
        json!(""),
        json!(1),
        json!([forge.kid()]),
        json!(null),
    ] {
        let mut header = forge.header.clone();
        header["kid"] = kid.clone();
        refused(&house, &forge.with_header(&header), &kid.to_string()).await;
    }
    let good = forge.good();
    let keys = house.dir.path().join("keys");
    crate::rotate_signing_key(&keys, NOW, crate::Pace::AtOnce).unwrap();
    house.app.keys.reload(NOW).unwrap();
    refused(&house, &good, "its key is retired").await;
}

/// A6.
#[tokio::test]
async fn claims_of_odd_types_open_nothing() {
    let (house, _, forge) = forge().await;
    for name in ["exp", "iat", "nbf"] {
        for value in [
            json!(forge.claims["exp"].to_string()),
            json!(1_790_003_600.5),
            json!(-1),
            json!(9_223_372_036_854_775_808_u64),
            json!(u64::MAX),
            json!(1e300),
            json!(null),
            json!([1_790_003_600]),
            json!({}),
            json!(true),
        ] {
            let mut claims = forge.claims.clone();
            claims[name] = value.clone();
            let why = format!("{name} {value}");
            refused(&house, &forge.with_claims(&claims), &why).await;
        }
    }
    let fields = forge.claims.as_object().unwrap().clone();
    for name in ["iss", "sub", "aud", "scope", "jti", "iat", "exp"] {
        let mut claims = forge.claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        refused(&house, &forge.with_claims(&claims), &format!("no {name}")).await;
        for value in [json!(null), json!(1), json!([fields[name]]), json!({})] {
            if value == fields[name] {
                continue;
            }
            let mut claims = forge.claims.clone();
            claims[name] = value.clone();
            let why = format!("{name} {value}");
            // A number where a time is expected may be a time: of 1970, and over.
            refused(&house, &forge.with_claims(&claims), &why).await;
        }
        let value = &fields[name];
        let twice = forge
            .claims
            .to_string()
            .replacen('{', &format!("{{\"{name}\":{value},"), 1);
        let twice = forge.signed(&forge.header.to_string(), &twice);
        refused(&house, &twice, &format!("{name} twice")).await;
    }
    for claims in ["[]", "null", "\"x\"", "", "{", "{}x"] {
        let token = forge.signed(&forge.header.to_string(), claims);
        refused(&house, &token, claims).await;
    }
}

/// A7, and A12: for somebody else, from somebody else, or for too long.
#[tokio::test]
async fn a_token_for_another_door_opens_nothing() {
    let (house, alice, forge) = forge().await;
    let nobody = "acc_00000000000000000000000000000000";
    for (name, value) in [
        ("aud", json!(relay().to_string())),
        ("aud", json!("API")),
        ("aud", json!("api ")),
        ("aud", json!(["api", relay().to_string()])),
        ("iss", json!("somebody-else")),
        ("iss", json!(["skytale-api"])),
        ("sub", json!(nobody)),
        ("scope", json!("relay")),
        ("scope", json!("account keys admin")),
        ("scope", json!("account account")),
        ("scope", json!("")),
        ("agent", json!(AgentId([4; 32]))),
        ("cnf", json!({"kid": "05".repeat(32)})),
        ("slim", json!(["acme/*"])),
        ("key", json!("nonesuch")),
        ("key", json!("' OR 1=1 --")),
        ("exp", json!(1_790_000_000 + 3_601)),
        ("exp", json!(1_790_000_000)),
        ("iat", json!(1_790_000_000 + 10)),
        ("nbf", json!(1_790_000_000 + 10)),
    ] {
        let mut claims = forge.claims.clone();
        claims[name] = value.clone();
        let why = format!("{name} {value}");
        refused(&house, &forge.with_claims(&claims), &why).await;
    }
    for wish in [agent_request(), slim_request()] {
        let other: TokenAnswer = house.token(alice.key(), wish).await.read();
        refused(&house, other.token.expose(), "bought for a relay").await;
    }
    // A session that says it has more than a session has, still is one; a token without a key that
    // was issued before the password changed is none.
    let mut claims = forge.claims.clone();
    claims["iat"] = json!(1_789_999_000);
    claims["exp"] = json!(1_790_000_100);
    claims.as_object_mut().unwrap().remove("key");
    let session = forge.with_claims(&claims);
    assert_eq!(house.get("/v1/usage", &session).await.status, 200);
    let change = json!({"password": PASSWORD, "new_password": "another password"});
    let changed = house
        .call(
            Method::PUT,
            "/v1/accounts/me/password",
            alice.session(),
            change,
        )
        .await;
    assert_eq!(changed.status, 204);
    refused(&house, &session, "from before").await;
}

/// A8: one token has one spelling.
#[tokio::test]
async fn another_spelling_of_a_good_token_opens_nothing() {
    let (house, _, forge) = forge().await;
    let good = forge.good();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let bytes: [u8; 64] = BASE64URL_NOPAD
        .decode(signature.as_bytes())
        .unwrap()
        .try_into()
        .unwrap();
    let mut spellings = vec![
        format!("{good}="),
        format!("{good}=="),
        format!("{good}."),
        format!("{good}.x"),
        format!(".{good}"),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\t"),
        good.replace('.', ". "),
        good.replacen('.', "..", 1),
        format!("{message}.{}", data_encoding::BASE64.encode(&bytes)),
        format!("{message}.{}", data_encoding::BASE64URL.encode(&bytes)),
        format!("{message}.{}", data_encoding::HEXLOWER.encode(&bytes)),
        format!(
            "{message}.{}",
            BASE64URL_NOPAD.encode(&[&bytes[..], &[0]].concat())
        ),
        format!("{message}.{}", BASE64URL_NOPAD.encode(&bytes[..63])),
        format!("{message}."),
        good.to_uppercase(),
    ];
    // The last digit of 64 bytes carries four bits that say nothing: all but one spelling are odd.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let stem = good.strip_suffix(last).unwrap();
    spellings.extend(
        alphabet
            .chars()
            .filter(|it| *it != last)
            .map(|it| format!("{stem}{it}")),
    );
    // The same S, but for a multiple of the group's order.
    let mut large = bytes;
    let mut carry = 0;
    for (byte, order) in large[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    spellings.push(format!("{message}.{}", BASE64URL_NOPAD.encode(&large)));
    for bit in (0..512).step_by(7) {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        spellings.push(format!("{message}.{}", BASE64URL_NOPAD.encode(&flipped)));
    }
    for spelling in spellings {
        if spelling != good {
            refused(&house, &spelling, &spelling).await;
        }
    }
    assert_eq!(house.get("/v1/accounts/me", &good).await.status, 200);
}

/// Of the group that Ed25519 works in, the smallest byte first.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// RFC 2104, for a key that is shorter than a block.
fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    use sha2::{Digest as _, Sha256};
    let pad = |with: u8| {
        let mut block = [with; 64];
        for (byte, key) in block.iter_mut().zip(key) {
            *byte ^= key;
        }
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message);
    let outer = Sha256::new().chain_update(pad(0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}
