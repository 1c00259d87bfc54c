//! The attacks on tokens: each forged by hand, byte by byte, and each refused.

use serde_json::{Value, json};

use super::*;

const NOW: Time = Time(1_790_000_000_000);
const RELAY: RelayKey = RelayKey([3; 32]);
const SEED: [u8; 32] = [9; 32];

fn signer() -> Signer {
    Signer::from_seed(&SEED).unwrap()
}

fn relay_verifier() -> Verifier {
    Verifier::new(Audience::Relay(RELAY), &signer().public_keys()).unwrap()
}

fn agent_claims() -> Claims {
    Claims {
        account: AccountId([1; 16]),
        grant: Grant::Agent {
            relay: RELAY,
            agent: AgentId([4; 32]),
            transport_key: TransportKey([5; 32]),
        },
        scopes: [Scope::Relay].into(),
        key: None,
        id: TokenId([2; 16]),
        issued: NOW,
        expires: NOW.plus(LIFETIME_MS_MAX),
    }
}

fn slim_claims() -> Claims {
    let patterns = ["org/*", "acme/ops/*", "acme/lab/planner"].map(str::to_owned);
    Claims {
        grant: Grant::Slim {
            relay: RELAY,
            patterns: SlimPatterns::parse(&patterns).unwrap(),
        },
        scopes: [Scope::Slim].into(),
        ..agent_claims()
    }
}

fn account_claims() -> Claims {
    Claims {
        grant: Grant::Account,
        scopes: [Scope::Account].into(),
        ..agent_claims()
    }
}

fn header() -> String {
    json!({"typ": "JWT", "alg": "EdDSA", "kid": signer().kid}).to_string()
}

fn payload() -> Value {
    written(&agent_claims())
}

fn written(claims: &Claims) -> Value {
    serde_json::to_value(Written::from(claims)).unwrap()
}

/// A token with any bytes in it and a signature that is good for them.
fn forge(header: &str, payload: &str) -> String {
    let message = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(payload.as_bytes())
    );
    let signature = SigningKey::from_bytes(&SEED).sign(message.as_bytes());
    format!(
        "{message}.{}",
        BASE64URL_NOPAD.encode(&signature.to_bytes())
    )
}

fn verdict(jwt: &str) -> Result<Claims, Refused> {
    relay_verifier().verify(jwt, NOW)
}

#[test]
fn what_was_signed_is_what_is_read() {
    for claims in [agent_claims(), slim_claims()] {
        let token = signer().sign(&claims);

        assert_eq!(verdict(&token), Ok(claims.clone()));
        assert_eq!(Claims::danger_read_unverified(&token), Ok(claims));
    }
}

#[test]
fn a_token_has_the_documented_json() {
    assert_eq!(
        payload(),
        json!({
            "iss": "skytale-api",
            "sub": "acc_01010101010101010101010101010101",
            "aud": "03".repeat(32),
            "agent": AgentId([4; 32]).to_string(),
            "cnf": {"kid": "05".repeat(32)},
            "scope": "relay",
            "jti": "tok_02020202020202020202020202020202",
            "iat": 1_790_000_000,
            "exp": 1_790_003_600,
        })
    );
    assert_eq!(
        verdict(&forge(&header(), &payload().to_string())),
        Ok(agent_claims())
    );
}

#[test]
fn a_token_for_slim_has_the_documented_json_and_names_no_key() {
    let body = json!({
        "iss": "skytale-api",
        "sub": "acc_01010101010101010101010101010101",
        "aud": "03".repeat(32),
        "scope": "slim",
        "slim": ["org/*", "acme/ops/*", "acme/lab/planner"],
        "jti": "tok_02020202020202020202020202020202",
        "iat": 1_790_000_000,
        "exp": 1_790_003_600,
    });

    assert_eq!(written(&slim_claims()), body);
    assert_eq!(
        verdict(&forge(&header(), &body.to_string())),
        Ok(slim_claims())
    );
}

/// Every choice among the claims by which the doors differ: only the three that a door wrote are
/// read, and each of them at its own door.
#[test]
fn every_mix_of_the_claims_of_two_doors_is_refused() {
    let native = payload();
    let slim = written(&slim_claims());
    let optional = |mask: usize, body: &mut Value| {
        for (bit, (name, from)) in [("agent", &native), ("cnf", &native), ("slim", &slim)]
            .into_iter()
            .enumerate()
        {
            body.as_object_mut().unwrap().remove(name);
            if mask >> bit & 1 == 1 {
                body[name] = from[name].clone();
            }
        }
    };
    let mut taken = Vec::new();
    for audience in [Audience::Api, Audience::Relay(RELAY)] {
        let verifier = Verifier::new(audience, &signer().public_keys()).unwrap();
        for scope in [
            "relay",
            "slim",
            "account",
            "keys",
            "relay slim",
            "slim relay",
            "slim account",
            "account keys",
            "relay slim account keys",
            "slim slim",
            "",
        ] {
            for mask in 0..8 {
                let mut body = native.clone();
                body["aud"] = json!(audience.to_string());
                body["scope"] = json!(scope);
                optional(mask, &mut body);
                let jwt = forge(&header(), &body.to_string());
                match verifier.verify(&jwt, NOW) {
                    Ok(_) => taken.push((audience, scope, mask)),
                    Err(refused) => assert_eq!(refused, Refused::Claims, "{body}"),
                }
                let unverified = Claims::danger_read_unverified(&jwt).is_ok();
                assert_eq!(unverified, taken.last() == Some(&(audience, scope, mask)));
            }
        }
    }
    assert_eq!(
        taken,
        [
            (Audience::Api, "account", 0),
            (Audience::Api, "keys", 0),
            (Audience::Api, "account keys", 0),
            (Audience::Relay(RELAY), "relay", 0b011),
            (Audience::Relay(RELAY), "slim", 0b100),
        ]
    );
}

#[test]
fn names_that_are_no_patterns_spoil_the_token() {
    for slim in [
        json!([]),
        json!(["*"]),
        json!(["org/*", "*"]),
        json!(["org"]),
        json!(["org/*", "org/*"]),
        json!("org/*"),
        json!([["org/*"]]),
        json!([1]),
        json!({"org": "*"}),
        json!(
            (0..=SLIM_PATTERNS_MAX)
                .map(|n| format!("{n}/*"))
                .collect::<Vec<_>>()
        ),
        json!([format!("{}/*", "a".repeat(1_025))]),
        json!(true),
        Value::Null,
    ] {
        let mut body = written(&slim_claims());
        body["slim"] = slim.clone();
        let refused = verdict(&forge(&header(), &body.to_string()));
        assert_eq!(refused, Err(Refused::Claims), "{slim}");
    }
}

/// What the API server may sign, every relay must be willing to read.
#[test]
fn the_longest_token_for_slim_is_short_enough() {
    let room = SLIM_PATTERNS_BYTES_MAX - 1_024 - 11;
    let longest = ["a".repeat(1_024) + "/*", "b".repeat(room) + "/*"];
    let claims = Claims {
        grant: Grant::Slim {
            relay: RELAY,
            patterns: SlimPatterns::parse(&longest).unwrap(),
        },
        ..slim_claims()
    };

    let token = signer().sign(&claims);

    assert_eq!(verdict(&token), Ok(claims));
}

/// A4: nothing but `EdDSA`, said once.
#[test]
fn no_other_algorithm_is_accepted() {
    let kid = signer().kid;
    let body = payload().to_string();
    for alg in [
        "none", "None", "NONE", "", "HS256", "ES256", "RS256", "PS256", "eddsa", "Ed448",
    ] {
        let header = json!({"typ": "JWT", "alg": alg, "kid": kid}).to_string();
        assert!(verdict(&forge(&header, &body)).is_err(), "{alg}");
        let unsigned = forge(&header, &body);
        let (message, _) = unsigned.rsplit_once('.').unwrap();
        assert!(verdict(&format!("{message}.")).is_err(), "{alg} unsigned");
    }
    for header in [
        format!(r#"{{"typ":"JWT","kid":"{kid}"}}"#),
        format!(r#"{{"typ":"JWT","alg":["EdDSA"],"kid":"{kid}"}}"#),
        format!(r#"{{"typ":"JWT","alg":"none","alg":"EdDSA","kid":"{kid}"}}"#),
        format!(r#"{{"typ":"JWT","alg":"EdDSA","kid":"x","kid":"{kid}"}}"#),
        format!(r#"{{"typ":"JOSE","alg":"EdDSA","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#),
        r#"{"typ":"JWT","alg":"EdDSA"}"#.to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
    ] {
        assert!(verdict(&forge(&header, &body)).is_err(), "{header}");
    }
}

/// A4: a verifier that believed `HS256` would check this one with the public key as the secret.
#[test]
fn the_public_key_is_no_shared_secret() {
    let header = json!({"typ": "JWT", "alg": "HS256", "kid": signer().kid}).to_string();

    let forged = forge(&header, &payload().to_string());

    assert_eq!(verdict(&forged), Err(Refused::Algorithm));
}

/// A5: the header may not bring, point to, or restrict keys.
#[test]
fn a_header_that_brings_its_own_key_is_refused() {
    let body = payload().to_string();
    let own = serde_json::to_value(public_jwk("x", &signer().public)).unwrap();
    for (name, value) in [
        ("jwk", own),
        ("jku", json!("https://example.org/keys")),
        ("x5u", json!("https://example.org/chain")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("anything", json!(1)),
    ] {
        let mut header: Value = serde_json::from_str(&header()).unwrap();
        header[name] = value;
        let refused = verdict(&forge(&header.to_string(), &body));
        assert_eq!(refused, Err(Refused::Malformed), "{name}");
    }
}

/// A5: a `kid` is compared, never used to look anything up in a file, a database or the network.
#[test]
fn an_odd_or_retired_kid_is_refused() {
    let body = payload().to_string();
    for kid in ["../../etc/passwd", "' OR 1=1 --", "\0", "", "retired"] {
        let header = json!({"typ": "JWT", "alg": "EdDSA", "kid": kid}).to_string();
        assert_eq!(
            verdict(&forge(&header, &body)),
            Err(Refused::UnknownKey),
            "{kid:?}"
        );
    }
    let long = json!({"typ": "JWT", "alg": "EdDSA", "kid": "k".repeat(10_240)}).to_string();
    assert_eq!(verdict(&forge(&long, &body)), Err(Refused::Malformed));
    for kid in [json!(1), json!([signer().kid]), json!({}), Value::Null] {
        let header = json!({"typ": "JWT", "alg": "EdDSA", "kid": kid}).to_string();
        assert!(verdict(&forge(&header, &body)).is_err(), "{kid}");
    }
}

/// A6: times are whole non-negative numbers, there, and sensible.
#[test]
fn wrongly_typed_times_are_refused() {
    let odd = [
        json!("1790003600"),
        json!(1_790_003_600.0),
        json!(1_790_003_600.5),
        json!(-1),
        json!(1e300),
        json!(9_223_372_036_854_775_808_u64),
        json!(u64::MAX),
        json!(0),
        Value::Null,
        json!([1_790_003_600]),
        json!({}),
        json!(true),
    ];
    for claim in ["exp", "iat", "nbf"] {
        for value in &odd {
            // An `nbf` of zero is the one honest value in the list.
            if claim == "nbf" && value == &json!(0) {
                continue;
            }
            let mut body = payload();
            body[claim] = value.clone();
            let refused = verdict(&forge(&header(), &body.to_string()));
            assert!(refused.is_err(), "{claim} = {value}");
        }
    }
}

#[test]
fn a_missing_or_doubled_claim_is_refused() {
    for claims in [agent_claims(), slim_claims()] {
        claims_missing_or_doubled(&written(&claims));
    }
}

fn claims_missing_or_doubled(whole: &Value) {
    for claim in whole.as_object().unwrap().keys() {
        let mut body = whole.clone();
        body.as_object_mut().unwrap().remove(claim);
        assert!(
            verdict(&forge(&header(), &body.to_string())).is_err(),
            "without {claim}"
        );

        let doubled =
            whole
                .to_string()
                .replacen('{', &format!(r#"{{"{claim}":{},"#, whole[claim]), 1);
        assert!(
            verdict(&forge(&header(), &doubled)).is_err(),
            "two of {claim}"
        );

        let mut body = whole.clone();
        body[claim] = Value::Null;
        assert!(
            verdict(&forge(&header(), &body.to_string())).is_err(),
            "null {claim}"
        );
    }
}

#[test]
fn a_token_counts_from_issue_to_expiry_and_five_seconds() {
    let token = signer().sign(&agent_claims());
    let at = |now: Time| relay_verifier().verify(&token, now).map(|_| ());
    let end = NOW.plus(LIFETIME_MS_MAX);

    assert_eq!(at(Time(NOW.0 - 5_001)), Err(Refused::NotYet));
    assert_eq!(at(Time(NOW.0 - 5_000)), Ok(()));
    assert_eq!(at(Time(end.0 + 4_999)), Ok(()));
    assert_eq!(at(Time(end.0 + 5_000)), Err(Refused::Expired));
}

#[test]
fn not_before_is_heeded_though_we_never_write_it() {
    let mut body = payload();
    body["nbf"] = json!(NOW.seconds() + 60);

    let refused = verdict(&forge(&header(), &body.to_string()));

    assert_eq!(refused, Err(Refused::NotYet));
}

#[test]
fn a_token_for_more_than_an_hour_is_refused_though_well_signed() {
    let mut claims = agent_claims();
    claims.expires = NOW.plus(LIFETIME_MS_MAX + 1000);

    assert_eq!(verdict(&signer().sign(&claims)), Err(Refused::Claims));
}

/// A7: each door takes only its own kind.
#[test]
fn a_token_for_another_audience_is_refused() {
    let elsewhere = Claims {
        grant: Grant::Agent {
            relay: RelayKey([8; 32]),
            agent: AgentId([4; 32]),
            transport_key: TransportKey([5; 32]),
        },
        ..agent_claims()
    };
    let api = Verifier::new(Audience::Api, &signer().public_keys()).unwrap();

    let slim_elsewhere = Claims {
        grant: Grant::Slim {
            relay: RelayKey([8; 32]),
            patterns: SlimPatterns::parse(&["org/*".to_owned()]).unwrap(),
        },
        ..slim_claims()
    };

    for foreign in [elsewhere, slim_elsewhere] {
        assert_eq!(verdict(&signer().sign(&foreign)), Err(Refused::Audience));
    }
    assert_eq!(
        api.verify(&signer().sign(&slim_claims()), NOW),
        Err(Refused::Audience)
    );
    assert_eq!(
        verdict(&signer().sign(&account_claims())),
        Err(Refused::Audience)
    );
    assert_eq!(
        api.verify(&signer().sign(&agent_claims()), NOW),
        Err(Refused::Audience)
    );
    assert!(api.verify(&signer().sign(&account_claims()), NOW).is_ok());
}

#[test]
fn audience_and_issuer_are_one_string_each() {
    for aud in [
        json!([RELAY.to_string()]),
        json!([RELAY.to_string(), "api"]),
        json!(""),
    ] {
        let mut body = payload();
        body["aud"] = aud;
        assert!(verdict(&forge(&header(), &body.to_string())).is_err());
    }
    let mut body = payload();
    body["iss"] = json!("somebody");
    assert_eq!(
        verdict(&forge(&header(), &body.to_string())),
        Err(Refused::Issuer)
    );
    body["iss"] = json!(["skytale-api"]);
    assert!(verdict(&forge(&header(), &body.to_string())).is_err());
}

/// A relay token must be bound to a key and permit the relay, and nothing besides.
#[test]
fn claims_that_contradict_each_other_are_refused() {
    for scope in [
        "",
        "account",
        "relay account",
        "relay relay",
        "relay  ",
        "slim",
        "RELAY",
    ] {
        let mut body = payload();
        body["scope"] = json!(scope);
        let refused = verdict(&forge(&header(), &body.to_string()));
        assert_eq!(refused, Err(Refused::Claims), "{scope:?}");
    }
    let api = Verifier::new(Audience::Api, &signer().public_keys()).unwrap();
    let mut body = payload();
    body["aud"] = json!("api");
    let bound = forge(&header(), &body.to_string());
    assert_eq!(api.verify(&bound, NOW), Err(Refused::Claims));
}

/// A8: one signature, one spelling.
#[test]
fn a_token_has_only_one_spelling() {
    let token = signer().sign(&agent_claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    // 64 bytes leave four bits of the last character unused; setting them must not pass.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = alphabet.find(last).unwrap();
    let sibling = alphabet.chars().nth(place + 1).unwrap();
    let mut loose = signature.to_owned();
    loose.pop();
    loose.push(sibling);

    for spelling in [
        format!("{message}.{loose}"),
        format!("{token}="),
        format!("{token}=="),
        format!("{token} "),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}.{signature}"),
        format!("{token}AAAA"),
        token.replace('.', ".."),
        message.to_owned(),
        format!("{message}."),
        String::new(),
        "..".to_owned(),
        token.replacen('e', "é", 1),
    ] {
        assert!(verdict(&spelling).is_err(), "{spelling:?}");
    }
}

#[test]
fn every_flipped_bit_of_the_signature_is_noticed() {
    let token = signer().sign(&agent_claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let forged = format!("{message}.{}", BASE64URL_NOPAD.encode(&flipped));
        assert_eq!(verdict(&forged), Err(Refused::Signature), "bit {bit}");
    }
}

/// A8: S + L is the same number to a careless verifier.
#[test]
fn a_signature_with_a_large_s_is_refused() {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let token = signer().sign(&agent_claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    let mut carry = 0;
    for (byte, add) in bytes[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }

    let forged = format!("{message}.{}", BASE64URL_NOPAD.encode(&bytes));

    assert_eq!(verdict(&forged), Err(Refused::Signature));
}

/// A8: for the identity point as key, R = identity and S = 0 "sign" everything.
#[test]
fn small_order_keys_sign_nothing() {
    let mut point = [0; 32];
    point[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let keys = PublicKeys(vec![("weak".into(), point)]);
    let header = json!({"typ": "JWT", "alg": "EdDSA", "kid": "weak"}).to_string();
    let forged = forge(&header, &payload().to_string());
    let (message, _) = forged.rsplit_once('.').unwrap();
    let token = format!("{message}.{}", BASE64URL_NOPAD.encode(&signature));

    let verifier = Verifier::new(Audience::Relay(RELAY), &keys).unwrap();

    assert_eq!(verifier.verify(&token, NOW), Err(Refused::Signature));
    assert_eq!(
        PublicKeys::from_json(keys.to_json().as_bytes()),
        Err(Misuse::BadKeySet)
    );
}

#[test]
fn another_key_with_the_same_kid_is_not_believed() {
    let mallory = Signer {
        kid: signer().kid,
        ..Signer::from_seed(&[10; 32]).unwrap()
    };

    assert_eq!(
        verdict(&mallory.sign(&agent_claims())),
        Err(Refused::Signature)
    );
}

#[test]
fn deep_or_long_json_is_refused_without_trouble() {
    let deep = "[".repeat(2_000);
    assert!(verdict(&forge(&deep, &payload().to_string())).is_err());
    assert!(verdict(&forge(&header(), &deep)).is_err());
    assert_eq!(verdict(&"a".repeat(10_000_000)), Err(Refused::Malformed));
}

#[test]
fn a_key_set_reads_back_and_passes_over_other_kinds() {
    let keys = signer().public_keys();
    let mut set: Value = serde_json::from_str(&keys.to_json()).unwrap();
    assert_eq!(set["keys"][0]["kty"], "OKP");
    assert_eq!(set["keys"][0]["crv"], "Ed25519");
    assert_eq!(set["keys"][0]["use"], "sig");
    assert_eq!(set["keys"][0]["alg"], "EdDSA");
    assert!(
        set["keys"][0].get("d").is_none(),
        "the secret half is not published"
    );

    set["keys"].as_array_mut().unwrap().push(json!({
        "kty": "RSA", "kid": "other", "n": "AQAB", "e": "AQAB"
    }));

    assert_eq!(PublicKeys::from_json(set.to_string().as_bytes()), Ok(keys));
}

/// The key and thumbprint of RFC 8037, appendix A.
#[test]
fn the_kid_is_the_thumbprint_of_the_standard() {
    let seed = BASE64URL_NOPAD
        .decode(b"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
        .unwrap();

    let signer = Signer::from_seed(&seed.try_into().unwrap()).unwrap();

    assert_eq!(signer.kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn a_signer_does_not_print_its_key() {
    let text = format!("{:?}", signer());

    assert!(text.contains("kid"));
    assert!(!text.contains("090909") && !text.contains("9, 9"));
}
