//! `skytale relay-dump`: what a relay has stored, as whoever takes its disk would see it. The
//! relay must have been stopped; nothing is changed.

use std::path::Path;

use data_encoding::{BASE64, HEXLOWER};
use serde::Serialize;
use skytale_relay::archive::{Archive as _, ArchiveError, ArchiveReader as _, fjall::FjallArchive};
use skytale_sdk::Config;
use skytale_wire::{
    Blob,
    envelope::{Envelope, Kind},
    frame::{FRAME_BYTES_MAX, decode},
    id::{AgentId, ChannelId, Seq},
};

use crate::{args::Everywhere, context, exit::Failure, output::Output};

/// One record, with everything that the relay knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) channel: ChannelId,
    pub(crate) seq: Seq,
    /// As it lies in the archive: an encoded [`Envelope`].
    pub(crate) record: Blob,
    pub(crate) envelope: Envelope,
}

/// A record as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    channel: ChannelId,
    seq: u64,
    kind: &'static str,
    epoch: u64,
    agent: AgentId,
    size: usize,
    body: String,
}

impl Stored {
    pub(crate) const fn kind(&self) -> &'static str {
        match self.envelope.kind {
            Kind::Application => "application",
            Kind::Commit => "commit",
            Kind::Join => "join",
            Kind::Leave => "leave",
            Kind::SlimMessageOne | Kind::SlimMessageTwo => "slim message",
            Kind::SlimCommitOne | Kind::SlimCommitTwo => "slim commit",
        }
    }

    /// The last bytes of the body, for people to see that they are noise: the first ones are MLS's
    /// clear header.
    pub(crate) fn ends(&self) -> String {
        let from = self.envelope.body.len().saturating_sub(BYTES_SHOWN);
        HEXLOWER.encode(self.envelope.body.get(from..).unwrap_or_default())
    }

    fn row(&self) -> Row {
        Row {
            channel: self.channel,
            seq: self.seq.0,
            kind: self.kind(),
            epoch: self.envelope.epoch.0,
            agent: self.envelope.agent,
            size: self.envelope.body.len(),
            body: BASE64.encode(&self.envelope.body),
        }
    }
}

/// `relay-dump`.
pub(crate) fn run(everywhere: &Everywhere, output: Output) -> Result<(), Failure> {
    let config = Config::load(context::flags_without_context(everywhere))?;
    let dir = config.data_dir.join("server").join("relay");
    if !dir.is_dir() {
        return Err(Failure::not_found(
            "no relay has run on this data directory",
        ));
    }
    for stored in records(&dir)? {
        let row = stored.row();
        output.result(&row, || {
            format!(
                "{} seq {} {} epoch {} {} {} bytes",
                row.channel.short(),
                row.seq,
                row.kind,
                row.epoch,
                row.agent,
                row.size
            )
        })?;
    }
    Ok(())
}

/// Everything in the archive of a relay that does not run.
pub(crate) fn records(dir: &Path) -> Result<Vec<Stored>, Failure> {
    let archive = FjallArchive::open(dir).map_err(|error| failed(&error))?;
    let reader = archive.reader();
    let mut all = Vec::new();
    for channel in reader.channels().map_err(|error| failed(&error))? {
        let mut after = Seq(0);
        loop {
            let page = reader
                .records(&channel.channel, after, PAGE, PAGE * FRAME_BYTES_MAX)
                .map_err(|error| failed(&error))?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for record in page {
                let envelope = decode(&record.record, FRAME_BYTES_MAX)
                    .map_err(|_| Failure::failed("a record of the archive cannot be read"))?;
                all.push(Stored {
                    channel: channel.channel,
                    seq: record.seq,
                    record: Blob(record.record),
                    envelope,
                });
            }
        }
    }
    Ok(all)
}

fn failed(error: &ArchiveError) -> Failure {
    Failure::failed(error.to_string())
}

const PAGE: usize = 64;
const BYTES_SHOWN: usize = 8;
