//! `skytale config show`: each setting, its value and where it comes from. Secrets are not shown,
//! only whether they are there.

use std::{borrow::Cow, path::Path};

use serde::Serialize;
use skytale_sdk::{Config, Context};

use crate::{
    args::{self, Everywhere},
    context,
    exit::Failure,
    output::{Output, table},
    settings::Settings,
};

#[derive(Debug, PartialEq, Serialize)]
struct Setting {
    name: Cow<'static, str>,
    value: Option<String>,
    origin: String,
}

pub(crate) fn run(
    command: &args::Config,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let args::Config::Show { settings: file } = command;
    let file = Settings::load(file)?;
    let config = Config::load(context::flags(everywhere))?;
    let context = match &config.context {
        Some(name) => Context::read(&config.config_dir, name)?.unwrap_or_default(),
        None => Context::default(),
    };
    let variable = |name: &str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
        Some(value.to_string_lossy().into_owned())
    };
    let mut settings = settings(everywhere, &config, &context, &|name| {
        variable(name).is_some()
    });
    settings.extend(file.shown(&variable).into_iter().map(|it| Setting {
        name: it.name.into(),
        value: it.value,
        origin: it.origin,
    }));
    if output.is_json() {
        return settings
            .iter()
            .try_for_each(|setting| output.json_line(setting));
    }
    let mut shown = table(["SETTING", "VALUE", "FROM"]);
    for setting in settings {
        let value = setting.value.unwrap_or_else(|| "(not set)".to_owned());
        shown.add_row([setting.name.into_owned(), value, setting.origin]);
    }
    output.line(&shown.to_string())
}

/// The same order of layers as [`Config::load`] has: flag, environment, context, default.
fn settings(
    everywhere: &Everywhere,
    config: &Config,
    context: &Context,
    is_set: &dyn Fn(&str) -> bool,
) -> Vec<Setting> {
    let saved = config
        .context
        .as_ref()
        .map_or_else(String::new, |name| format!("context \"{name}\""));
    let origin = |flag: bool, variables: &[&str], in_context: bool, there: bool| {
        let variable = variables.iter().find(|name| is_set(name));
        match variable {
            _ if flag => "flag".to_owned(),
            Some(name) => (*name).to_owned(),
            None if in_context => saved.clone(),
            None if there => "default".to_owned(),
            None => String::new(),
        }
    };
    let path = |path: &Path| Some(path.display().to_string());
    let relay = config.relay.as_ref().map(ToString::to_string);
    let key = ["SKYTALE_API_KEY", "SKYTALE_API_KEY_FILE"];
    let vault = ["SKYTALE_VAULT_KEY", "SKYTALE_VAULT_KEY_FILE"];
    let vault_given = vault.iter().any(|name| is_set(name));
    let seconds = |name, time: std::time::Duration| Setting {
        name: Cow::Borrowed(name),
        value: Some(format!("{} s", time.as_secs_f64())),
        origin: origin(everywhere.timeout.is_some(), &[], false, true),
    };
    vec![
        Setting {
            name: "config_dir".into(),
            value: path(&config.config_dir),
            origin: origin(
                false,
                &["SKYTALE_CONFIG_DIR", "XDG_CONFIG_HOME"],
                false,
                true,
            ),
        },
        Setting {
            name: "context".into(),
            value: config.context.clone(),
            origin: origin(
                everywhere.context.is_some(),
                &["SKYTALE_CONTEXT"],
                false,
                config.context.is_some(),
            ),
        },
        Setting {
            name: "data_dir".into(),
            value: path(&config.data_dir),
            origin: origin(
                everywhere.data_dir.is_some(),
                &["SKYTALE_DATA_DIR"],
                context.data_dir.is_some(),
                true,
            ),
        },
        Setting {
            name: "api_url".into(),
            value: config.api_url.clone(),
            origin: origin(
                everywhere.api_url.is_some(),
                &["SKYTALE_API_URL"],
                context.api_url.is_some(),
                false,
            ),
        },
        Setting {
            name: "api_key".into(),
            value: config
                .api_key
                .is_some()
                .then(|| "(set, not shown)".to_owned()),
            origin: origin(false, &key, context.api_key.is_some(), false),
        },
        Setting {
            name: "relay".into(),
            value: relay,
            origin: origin(
                everywhere.relay.is_some(),
                &["SKYTALE_RELAY"],
                context.relay.is_some(),
                false,
            ),
        },
        Setting {
            name: "ca_file".into(),
            value: config.ca_file.as_deref().and_then(path),
            origin: origin(
                everywhere.ca_file.is_some(),
                &["SKYTALE_CA_FILE"],
                context.ca_file.is_some(),
                false,
            ),
        },
        Setting {
            name: "traffic".into(),
            value: Some(config.traffic.to_string()),
            origin: origin(
                everywhere.traffic.is_some(),
                &["SKYTALE_TRAFFIC"],
                context.traffic.is_some(),
                true,
            ),
        },
        Setting {
            name: "vault_key".into(),
            value: Some(if vault_given {
                "(set, not shown)".to_owned()
            } else {
                config.config_dir.join("vault.key").display().to_string()
            }),
            origin: origin(false, &vault, false, true),
        },
        seconds("timeout_connect", config.timeouts.connect),
        seconds("timeout_token", config.timeouts.token),
        seconds("timeout_stored", config.timeouts.stored),
        seconds("timeout_change", config.timeouts.change),
        seconds("timeout_ask", config.timeouts.ask),
    ]
}
