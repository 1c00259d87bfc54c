//! The account behind the agents: `signup`, `login`, `logout`, `whoami`, `account`, `usage`.

use serde::Serialize;
use skytale_sdk::{Account, Config, Context, Error, RelayAddr, RelayStatus, check_agent_name};
use skytale_wire::{
    http::{Plan, Secret, Usage, Used},
    id::AgentId,
};
use zeroize::Zeroizing;

use crate::{
    args::{self, Everywhere},
    context,
    exit::{Exit, Failure},
    output::{Output, table},
    secret,
    up::public_id,
};

#[derive(Debug, Serialize)]
struct SignedIn {
    account_id: String,
    context: String,
    api_url: String,
    key_id: String,
    relay: Option<String>,
}

/// `signup`: an account, and then the same as [`login`].
pub(crate) async fn signup(
    wish: args::Signup,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let at = Place::of(everywhere)?;
    let account = at.account(None)?;
    let (email, password) = credentials(wish.credentials)?;
    account
        .sign_up(&email, copy(&password), wish.name.as_deref())
        .await?;
    sign_in(&at, &account, &email, password, output)
        .await
        .map_err(|failure| {
            if failure.exit() != Exit::Denied {
                return failure;
            }
            // The sign-up's answer does not tell; the sign-in's does.
            Failure::new(
                Exit::Denied,
                "this address has an account already, with another password: `skytale login`",
            )
        })
}

/// `login`: a key of one's own for this machine, saved in a context.
pub(crate) async fn login(
    wish: args::Credentials,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let at = Place::of(everywhere)?;
    let account = at.account(None)?;
    let (email, password) = credentials(wish)?;
    sign_in(&at, &account, &email, password, output).await
}

async fn sign_in(
    at: &Place,
    account: &Account,
    email: &str,
    password: Secret,
    output: Output,
) -> Result<(), Failure> {
    let session = account.sign_in(email, password).await?;
    let key = account.first_key(&session, "skytale login").await?;
    let relay = match &at.config.relay {
        Some(relay) => Some(relay.clone()),
        None => first_relay(&at.account(Some(copy(&key.key)))?).await?,
    };
    let shown = SignedIn {
        account_id: session.account_id.to_string(),
        context: at.context.clone(),
        api_url: at.api_url.clone(),
        key_id: key.id,
        relay: relay.as_ref().map(ToString::to_string),
    };
    let dir = &at.config.config_dir;
    let mut context = Context::read(dir, &at.context)?.unwrap_or_default();
    context.api_url = Some(at.api_url.clone());
    context.api_key = Some(key.key);
    context.relay = relay;
    if at.config.ca_file.is_some() {
        context.ca_file.clone_from(&at.config.ca_file);
    }
    context.write(dir, &at.context)?;
    Context::choose(dir, &at.context)?;
    output.result(&shown, || {
        format!(
            "signed in as {} · saved context \"{}\"",
            shown.account_id, shown.context
        )
    })
}

/// The relay for new channels, as the API server names it.
async fn first_relay(account: &Account) -> Result<Option<RelayAddr>, Failure> {
    let relays = account.relays().await?;
    Ok(relays.into_iter().find_map(|relay| {
        Some(RelayAddr {
            key: relay.key,
            address: relay.addresses.into_iter().next()?,
        })
    }))
}

/// `account password|delete`: for whoever knows the password; a key is not enough.
pub(crate) async fn change(
    command: args::Account,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let at = Place::of(everywhere)?;
    let account = at.account(None)?;
    match command {
        args::Account::Password(wish) => {
            let (email, password) = credentials(wish)?;
            let new_password = new_password()?;
            let session = account.sign_in(&email, copy(&password)).await?;
            account
                .change_password(&session, password, new_password)
                .await?;
            let shown = serde_json::json!({"account_id": session.account_id, "changed": true});
            output.result(&shown, || {
                "the password is changed; API keys are as before".to_owned()
            })
        }
        args::Account::Delete {
            credentials: wish,
            yes,
        } => {
            let (email, password) = credentials(wish)?;
            if !yes {
                confirm_deletion(&email)?;
            }
            let session = account.sign_in(&email, copy(&password)).await?;
            account.delete(&session, password).await?;
            let shown = serde_json::json!({"account_id": session.account_id, "deleted": true});
            output.result(&shown, || {
                "the account is deleted: its keys are worthless, and relays shut out its agents"
                    .to_owned()
            })
        }
    }
}

pub(crate) fn new_password() -> Result<Secret, Failure> {
    if let Some(password) = secret::from_environment("SKYTALE_NEW_PASSWORD")? {
        return Ok(owned(password));
    }
    let nobody = || {
        Failure::usage(
            "no new password: give it with SKYTALE_NEW_PASSWORD_FILE or SKYTALE_NEW_PASSWORD",
        )
    };
    let password = secret::asked("new password", true)?.ok_or_else(nobody)?;
    let again = secret::asked("once more", true)?.ok_or_else(nobody)?;
    if password == again {
        Ok(owned(password))
    } else {
        Err(Failure::usage(
            "the two are not the same: nothing was changed",
        ))
    }
}

fn confirm_deletion(email: &str) -> Result<(), Failure> {
    let question = format!("delete the account of {email} for good? its address");
    let answer = secret::asked(&question, false)?
        .ok_or_else(|| Failure::usage("nobody can be asked here: add --yes if it is meant"))?;
    if answer.trim().eq_ignore_ascii_case(email) {
        Ok(())
    } else {
        Err(Failure::usage(
            "that is another address: nothing was changed",
        ))
    }
}

/// Where somebody signs in, and under which name it is saved.
struct Place {
    config: Config,
    api_url: String,
    context: String,
}

impl Place {
    fn of(everywhere: &Everywhere) -> Result<Self, Failure> {
        let named = everywhere.context.clone();
        let mut config = match Config::load(context::flags(everywhere)) {
            // The context named by --context may be the one that is about to be made.
            Err(Error::NotFound(_)) if named.is_some() => {
                Config::load(context::flags_without_context(everywhere))?
            }
            other => other?,
        };
        // A relay of another API server's context would be of no use with this one.
        if everywhere.api_url.is_some() {
            config.relay.clone_from(&everywhere.relay);
        }
        let api_url = config
            .api_url
            .clone()
            .ok_or_else(|| Failure::usage("which API server? give --api-url or SKYTALE_API_URL"))?;
        let context = named.unwrap_or_else(|| host(&api_url));
        check_agent_name(&context)?;
        Ok(Self {
            config,
            api_url,
            context,
        })
    }

    fn account(&self, key: Option<Secret>) -> Result<Account, Failure> {
        let timeout = self.config.timeouts.token;
        let ca_file = self.config.ca_file.as_deref();
        Ok(Account::new(&self.api_url, key, ca_file, timeout)?)
    }
}

/// The host of a URL, for naming a context after it.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    authority.replace([':', '[', ']'], "-")
}

fn credentials(wish: args::Credentials) -> Result<(String, Secret), Failure> {
    let email = match wish.email {
        Some(email) => email,
        None => secret::asked("e-mail", false)?
            .map(|email| email.trim().to_owned())
            .ok_or_else(|| Failure::usage("whose account? give --email"))?,
    };
    let password = if wish.password_stdin {
        secret::from_stdin()?
    } else {
        match secret::from_environment("SKYTALE_PASSWORD")? {
            Some(password) => password,
            None => secret::asked("password", true)?.ok_or_else(|| {
                Failure::usage(
                    "no password: give it with --password-stdin, SKYTALE_PASSWORD_FILE or SKYTALE_PASSWORD",
                )
            })?,
        }
    };
    Ok((email, owned(password)))
}

fn owned(mut text: Zeroizing<String>) -> Secret {
    Secret::new(std::mem::take(&mut *text))
}

pub(crate) fn copy(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_owned())
}

/// `logout`: the key is revoked where it was made, and forgotten here in any case.
pub(crate) async fn logout(everywhere: &Everywhere, output: Output) -> Result<(), Failure> {
    let config = Config::load(context::flags(everywhere))?;
    let name = config
        .context
        .clone()
        .ok_or_else(|| Failure::not_found("there is no context, so nobody is signed in"))?;
    let mut saved = Context::read(&config.config_dir, &name)?.unwrap_or_default();
    let key = saved.api_key.take().ok_or_else(|| {
        Failure::not_found(format!(
            "context \"{name}\" has no API key: nobody is signed in"
        ))
    })?;
    let url = saved.api_url.clone().unwrap_or_default();
    let id = public_id(&key).unwrap_or_default().to_owned();
    let revoked = match Account::new(
        &url,
        Some(key),
        saved.ca_file.as_deref(),
        config.timeouts.token,
    ) {
        Ok(account) => account.revoke_key(&id).await,
        Err(error) => Err(error),
    };
    saved.write(&config.config_dir, &name)?;
    let revoked = match revoked {
        // A key that the server does not take any more needs no revoking.
        Ok(()) | Err(Error::Unauthorized(_) | Error::NotFound(_)) => true,
        Err(error) => {
            output.complain(&format!(
                "skytale: the key is forgotten here, but {error}; revoke {id} from elsewhere with `skytale keys revoke`"
            ));
            false
        }
    };
    let shown = serde_json::json!({"context": name, "key_id": id, "revoked": revoked});
    output.result(&shown, || format!("signed out of context \"{name}\""))
}

#[derive(Debug, Serialize)]
struct Who {
    agent: Option<String>,
    id: Option<AgentId>,
    did: Option<String>,
    account_id: Option<String>,
    email: Option<String>,
    context: Option<String>,
    api_url: Option<String>,
    relay: Option<String>,
    data_dir: std::path::PathBuf,
    agents: Vec<String>,
}

/// `whoami`: with `--as`, or when there is one agent, that agent too. A new one goes online once,
/// so that others can add it while it is away.
pub(crate) async fn whoami(everywhere: &Everywhere, output: Output) -> Result<(), Failure> {
    let mut config = Config::load(context::flags(everywhere))?;
    let agents = config.agents()?;
    let named = match (&everywhere.agent, agents.as_slice()) {
        (Some(name), _) => Some(name.clone()),
        (None, [only]) => Some(only.clone()),
        (None, _) => None,
    };
    let mut who = Who {
        agent: named.clone(),
        id: None,
        did: None,
        account_id: None,
        email: None,
        context: config.context.clone(),
        api_url: config.api_url.clone(),
        relay: config.relay.as_ref().map(ToString::to_string),
        data_dir: config.data_dir.clone(),
        agents,
    };
    if config.api_key.is_some() {
        match context::account(&mut config)?.account().await {
            Ok(account) => {
                who.account_id = Some(account.id.to_string());
                who.email = Some(account.email);
            }
            Err(error) => output.complain(&format!("skytale: {error}")),
        }
    }
    if let Some(name) = named {
        let everywhere = Everywhere {
            agent: Some(name),
            ..everywhere.clone()
        };
        let id = context::as_agent_or_new(&everywhere, async |agent| Ok(agent.id())).await?;
        who.id = Some(id);
        who.did = Some(id.did_key());
        if who.account_id.is_some()
            && let Err(failure) = leave_key_packages(&everywhere).await
        {
            output.complain(&format!(
                "skytale: others cannot add this agent yet: {failure}"
            ));
        }
    }
    output.result(&who, || described(&who))
}

/// Makes sure that the relay has KeyPackages of the agent, so that others can add it while it is
/// away. The relay says how many it has when it lets the agent in: after an upload that is asked
/// once more.
async fn leave_key_packages(everywhere: &Everywhere) -> Result<(), Failure> {
    for _ in 0..KEY_PACKAGE_TRIES {
        let there = context::as_agent(everywhere, async |agent| {
            agent.online().await?;
            let status = agent.status().await?;
            let has_some = |relay: &RelayStatus| relay.key_packages.is_some_and(|left| left > 0);
            Ok(status.held_by.is_some() || status.relays.iter().all(has_some))
        });
        if there.await? {
            return Ok(());
        }
    }
    Err(Failure::failed(
        "the relay does not keep its KeyPackages: run `skytale doctor`",
    ))
}

fn described(who: &Who) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            lines.push(format!("  {name:<8} {value}"));
        }
    };
    let id = who.id.map(|id| id.to_string());
    line("agent", who.agent.as_deref());
    line("id", id.as_deref());
    line("did", who.did.as_deref());
    line("account", who.account_id.as_deref());
    line("e-mail", who.email.as_deref());
    line("context", who.context.as_deref());
    line("api", who.api_url.as_deref());
    line("relay", who.relay.as_deref());
    line("data", Some(&who.data_dir.display().to_string()));
    if who.agent.is_none() && !who.agents.is_empty() {
        line("agents", Some(&who.agents.join(", ")));
    }
    lines.join("\n")
}

/// `usage`.
pub(crate) async fn usage(
    wish: &args::Usage,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let (_, account) = context::signed_in(everywhere)?;
    let usage = account.usage(wish.month).await?;
    output.result(&usage, || described_usage(&usage))
}

fn described_usage(usage: &Usage) -> String {
    let numbers = |used: &Used| {
        [
            used.token_exchanges.to_string(),
            used.messages.to_string(),
            used.bytes.to_string(),
            used.delivered.to_string(),
            hours(used.connected_s),
        ]
    };
    let mut shown = table([
        "MONTH",
        "KEY",
        "TOKENS",
        "MESSAGES",
        "BYTES",
        "COPIES",
        "CONNECTED",
    ]);
    for month in &usage.months {
        let keys = month.keys.iter().flatten();
        for key in keys {
            let name = key
                .key_id
                .as_ref()
                .map_or_else(|| "none".to_owned(), ToString::to_string);
            let row = [month.month.to_string(), name];
            shown.add_row(row.into_iter().chain(numbers(&key.used)));
        }
        let row = [month.month.to_string(), "all".to_owned()];
        shown.add_row(row.into_iter().chain(numbers(&month.used)));
    }
    let Plan {
        name,
        messages_max,
        bytes_max,
        renews_at,
    } = &usage.plan;
    let bound = |most: Option<u64>| most.map_or_else(|| "any".to_owned(), |most| most.to_string());
    format!(
        "{shown}\nplan \"{}\": {} messages and {} bytes a month; this one ends {renews_at}",
        crate::output::harmless(name),
        bound(*messages_max),
        bound(*bytes_max)
    )
}

/// With one decimal.
fn hours(seconds: u64) -> String {
    let tenths = seconds / 360;
    format!("{}.{} h", tenths / 10, tenths % 10)
}

/// The first brings the KeyPackages, the second sees them there.
const KEY_PACKAGE_TRIES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_named_after_its_server() {
        assert_eq!(host("https://api.example.org/"), "api.example.org");
        assert_eq!(host("http://127.0.0.1:7700"), "127.0.0.1-7700");
        assert!(check_agent_name(&host("http://[::1]:7700")).is_ok());
    }
}
