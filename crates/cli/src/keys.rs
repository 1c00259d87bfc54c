//! An account's API keys: `keys list|create|rotate|revoke`.

use std::time::Duration;

use skytale_sdk::{Account, Config, Context};
use skytale_wire::{
    http::{Key, MakeKey, NewKey},
    token::Scopes,
};

use crate::{
    accounts::copy,
    args::{self, Everywhere},
    context,
    exit::Failure,
    output::{Output, table},
    up::public_id,
};

/// `keys list|create|rotate|revoke`.
pub(crate) async fn run(
    command: args::Keys,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let (config, account) = context::signed_in(everywhere)?;
    match command {
        args::Keys::List => list(&account, output).await,
        args::Keys::Create {
            name,
            scopes,
            expires,
        } => {
            let wish = MakeKey {
                name,
                scopes: (!scopes.is_empty()).then_some(scopes),
                expires_in_s: expires
                    .map(|span| span.as_secs())
                    .filter(|seconds| *seconds > 0),
            };
            let key = account.make_key(&wish).await?;
            show_new(&key, output)
        }
        args::Keys::Rotate { id, overlap } => {
            let overlap = overlap.unwrap_or_default();
            match id {
                Some(id) => {
                    let key = account.rotate_key(&id, overlap).await?;
                    show_new(&key, output)
                }
                None => rotate_own(&config, &account, overlap, output).await,
            }
        }
        args::Keys::Revoke { id } => {
            account.revoke_key(&id).await?;
            let shown = serde_json::json!({"id": id, "revoked": true});
            output.result(&shown, || format!("revoked {id}"))
        }
    }
}

fn show_new(key: &NewKey, output: Output) -> Result<(), Failure> {
    output.say("this key is shown once: save it now");
    output.result(key, || key.key.expose().to_owned())
}

/// The context's key: the new one is saved before anything else happens, because the old one may be
/// over already.
async fn rotate_own(
    config: &Config,
    account: &Account,
    overlap: Duration,
    output: Output,
) -> Result<(), Failure> {
    let name = config.context.clone().ok_or_else(|| {
        Failure::usage("which key? without a context, name it by its id (`skytale keys list`)")
    })?;
    let mut saved = Context::read(&config.config_dir, &name)?.unwrap_or_default();
    let id = saved.api_key.as_ref().and_then(public_id).ok_or_else(|| {
        Failure::not_found(format!(
            "context \"{name}\" has no API key: name one by its id"
        ))
    })?;
    let id = id.to_owned();
    let new = account.rotate_key(&id, overlap).await?;
    saved.api_key = Some(copy(&new.key));
    if let Err(error) = saved.write(&config.config_dir, &name) {
        output.complain("skytale: the new key cannot be saved, so here it is:");
        output.line(new.key.expose())?;
        return Err(error.into());
    }
    let shown = serde_json::json!({"context": name, "old_key_id": id, "key_id": new.id});
    output.result(&shown, || {
        format!(
            "context \"{name}\" has key {} now, in the place of {id}",
            new.id
        )
    })
}

async fn list(account: &Account, output: Output) -> Result<(), Failure> {
    let mut after = None;
    let mut keys: Vec<Key> = Vec::new();
    for _ in 0..KEY_PAGES_MAX {
        let page = account.keys(after.as_deref()).await?;
        keys.extend(page.keys);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if output.is_json() {
        return keys.iter().try_for_each(|key| output.json_line(key));
    }
    let mut shown = table(["ID", "NAME", "MAY", "MADE", "LAST USED", "ENDS", "REVOKED"]);
    for key in keys {
        shown.add_row([
            key.id,
            crate::output::harmless(&key.name),
            Scopes::from_iter(key.scopes).to_string(),
            key.created_at,
            key.last_used_at.unwrap_or_else(|| "never".to_owned()),
            key.expires_at.unwrap_or_else(|| "never".to_owned()),
            key.revoked_at.unwrap_or_else(|| "no".to_owned()),
        ]);
    }
    output.line(&shown.to_string())
}

/// Pages of fifty: far more keys than an account may have.
const KEY_PAGES_MAX: usize = 1_000;
