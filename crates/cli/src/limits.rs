//! How much may be asked of the API server, and who says where a request comes from: the flags for
//! that. Each is called as its setting, and so is the variable of the environment.

use clap::{Args, value_parser};
use skytale_api::{Cidr, config::Layer};

/// What is not given stays as the server has it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of the API server")]
pub(crate) struct Limits {
    /// A proxy whose X-Forwarded-For is believed, as an address or a block like 10.0.0.0/8; may be
    /// given more than once. From anybody else that header says nothing
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(crate) trusted_proxy: Vec<Cidr>,

    /// Connections from one address (IPv6: one /64) at once, but for trusted proxies [default: 512]
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u32).range(1..))]
    connections_per_address_max: Option<u32>,

    /// Requests a minute from one address (IPv6: one /64) without a good key or token: sign-ups,
    /// sign-ins, wrong keys [default: 120]
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u32).range(1..))]
    unproven_per_minute_max: Option<u32>,

    /// Wrong passwords an hour for one e-mail [default: 100]
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u32).range(1..))]
    wrong_passwords_per_hour_max: Option<u32>,

    /// Requests a second with one API key [default: 5000]
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u32).range(1..))]
    key_requests_per_second_max: Option<u32>,

    /// Requests a second of one account [default: 10000]
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u32).range(1..))]
    account_requests_per_second_max: Option<u32>,

    /// API keys a minute that one account may make or rotate [default: 200]
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u32).range(1..))]
    new_keys_per_minute_max: Option<u32>,
}

impl Limits {
    /// The flags, with these among them.
    pub(crate) fn over(self, flags: Layer) -> Layer {
        let connections = self.connections_per_address_max;
        Layer {
            trusted_proxies: (!self.trusted_proxy.is_empty()).then_some(self.trusted_proxy),
            connections_per_address_max: connections
                .map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
            unproven_per_minute_max: self.unproven_per_minute_max,
            wrong_passwords_per_hour_max: self.wrong_passwords_per_hour_max,
            key_requests_per_second_max: self.key_requests_per_second_max,
            account_requests_per_second_max: self.account_requests_per_second_max,
            new_keys_per_minute_max: self.new_keys_per_minute_max,
            ..flags
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;
    use skytale_api::Config;

    use super::*;
    use crate::settings::no_flags;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        limits: Limits,
    }

    fn read(line: &[&str]) -> Result<Config, clap::Error> {
        let line = Line::try_parse_from([&["skytale"], line].concat())?;
        let flags = line.limits.over(no_flags());
        Ok(Config::layered(Path::new("x"), flags, no_flags()).unwrap())
    }

    /// The help names them, and the server has them.
    #[test]
    fn the_defaults_are_as_the_help_says() {
        let config = read(&[]).unwrap();

        assert!(config.trusted_proxies.is_empty());
        assert_eq!(
            (
                config.connections_per_address_max,
                config.unproven_per_minute_max,
                config.wrong_passwords_per_hour_max,
                config.key_requests_per_second_max,
                config.account_requests_per_second_max,
                config.new_keys_per_minute_max
            ),
            (512, 120, 100, 5_000, 10_000, 200)
        );
    }

    #[test]
    fn each_flag_reaches_its_setting() {
        let config = read(&[
            "--trusted-proxy=10.0.0.0/8,192.0.2.1",
            "--trusted-proxy=fd00::/8",
            "--connections-per-address-max=1",
            "--unproven-per-minute-max=2",
            "--wrong-passwords-per-hour-max=3",
            "--key-requests-per-second-max=4",
            "--account-requests-per-second-max=5",
            "--new-keys-per-minute-max=6",
        ])
        .unwrap();

        let proxies: Vec<_> = config.trusted_proxies.iter().map(Cidr::to_string).collect();
        assert_eq!(proxies, ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]);
        assert_eq!(
            (
                config.connections_per_address_max,
                config.unproven_per_minute_max,
                config.wrong_passwords_per_hour_max,
                config.key_requests_per_second_max,
                config.account_requests_per_second_max,
                config.new_keys_per_minute_max
            ),
            (1, 2, 3, 4, 5, 6)
        );
        for bad in ["--trusted-proxy=10.0.0.0/99", "--unproven-per-minute-max=0"] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
    }
}
