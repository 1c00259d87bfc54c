//! The text that metrics are read as: numbers with names and reasons, and nobody's name.

use metrics::{Key, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::{
    driver::Snapshot,
    edge::grpc::{GrpcState, GrpcTallied},
    hub::SlimCounters,
};

/// How the relay stands with those who issue its tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Issuers {
    pub(super) are_ready: bool,
    /// Nothing when none of them is told of usage.
    pub(super) report_waits: Option<bool>,
}

/// The counters belong to the hub. A fresh recorder for each scrape only writes them down, so
/// that several relays can live in one process.
pub(super) fn render(snapshot: &Snapshot, issuers: Issuers, grpc: Option<&GrpcState>) -> String {
    let page = Page(PrometheusBuilder::new().build_recorder());
    if let Some(grpc) = grpc {
        render_grpc(&page, grpc);
    }
    let counters = &snapshot.counters;
    page.gauge(
        "skytale_relay_writable",
        "Whether the archive takes writes.",
        usize::from(snapshot.writable),
    );
    page.gauge(
        "skytale_relay_issuers_ready",
        "Whether the token issuers' keys are at hand.",
        usize::from(issuers.are_ready),
    );
    if let Some(waits) = issuers.report_waits {
        page.gauge(
            "skytale_relay_usage_report_waits",
            "Whether the API server has not taken the last report of usage.",
            usize::from(waits),
        );
    }
    page.gauge(
        "skytale_relay_connections",
        "Connections that are open.",
        snapshot.connections,
    );
    page.gauge(
        "skytale_relay_channels",
        "Channels that there are.",
        snapshot.channels,
    );
    page.gauge(
        "skytale_relay_unstored",
        "Writes that are not yet durable.",
        snapshot.unstored,
    );
    for (name, about, value) in [
        (
            "skytale_relay_opened_total",
            "Connections that were let in.",
            counters.opened,
        ),
        (
            "skytale_relay_published_total",
            "Messages acknowledged.",
            counters.published,
        ),
        (
            "skytale_relay_acknowledged_total",
            "Commits and departures acknowledged.",
            counters.acknowledged,
        ),
        (
            "skytale_relay_created_total",
            "Channels created.",
            counters.created,
        ),
        (
            "skytale_relay_delivered_total",
            "Records delivered as they came.",
            counters.delivered,
        ),
        (
            "skytale_relay_caught_up_total",
            "Records delivered from the archive.",
            counters.caught_up,
        ),
        (
            "skytale_relay_appended_total",
            "Records handed to the archive.",
            counters.appended,
        ),
        (
            "skytale_relay_welcomes_total",
            "Welcomes delivered.",
            counters.welcomes,
        ),
        (
            "skytale_relay_key_packages_total",
            "KeyPackages handed out.",
            counters.key_packages,
        ),
        (
            "skytale_relay_reads_total",
            "Reads asked of the archive.",
            counters.reads,
        ),
        (
            "skytale_relay_real_cells_total",
            "Cells with frames sent to agents.",
            snapshot.tallied.real,
        ),
        (
            "skytale_relay_cover_cells_total",
            "Cover sent to agents.",
            snapshot.tallied.cover,
        ),
        (
            "skytale_relay_cells_over_schedule_total",
            "Cells sent beside a schedule, because the receiver allows it: a watcher of the line sees them.",
            snapshot.tallied.over,
        ),
        (
            "skytale_relay_slots_missed_total",
            "Slots in which nothing was sent, because this machine was late or the agent did not read.",
            snapshot.tallied.missed,
        ),
        (
            "skytale_relay_cover_received_total",
            "Cover of agents that arrived.",
            snapshot.tallied.cover_received,
        ),
        (
            "skytale_relay_cover_missing_total",
            "Cover of agents that somebody took out on its way.",
            snapshot.tallied.cover_missing,
        ),
        (
            "skytale_relay_line_breaches_total",
            "Lines that were closed because the agent broke their format.",
            snapshot.tallied.breaches,
        ),
    ] {
        page.counter(&Key::from_static_name(name), about, value);
    }
    render_slim(&page, snapshot);
    for (name, about, by_reason) in [
        (
            "skytale_relay_refused_total",
            "Requests refused.",
            &counters.nacks,
        ),
        (
            "skytale_relay_closed_total",
            "Connections closed by the hub.",
            &counters.closed,
        ),
    ] {
        for (refusal, count) in by_reason {
            page.counter(&by(name, refusal.code()), about, *count);
        }
    }
    page.0.handle().render()
}

fn render_slim(page: &Page, snapshot: &Snapshot) {
    page.gauge(
        "skytale_relay_slim_links",
        "SLIM streams that are open.",
        snapshot.slim_links,
    );
    page.gauge(
        "skytale_relay_slim_logs",
        "Names of SLIM that have a log.",
        snapshot.slim_logs,
    );
    let SlimCounters {
        relayed,
        delivered,
        caught_up,
        archived,
        unarchived,
        repeated,
        commits_accepted,
        commits_stale,
        commits_repeated,
        commits_unordered,
        rtx_answered,
        pings,
        refused,
        dropped,
    } = &snapshot.counters.slim;
    for (name, about, value) in [
        (
            "skytale_relay_slim_relayed_total",
            "SLIM messages passed on to somebody.",
            *relayed,
        ),
        (
            "skytale_relay_slim_delivered_total",
            "SLIM messages handed to connections, counted once for each receiver.",
            *delivered,
        ),
        (
            "skytale_relay_slim_caught_up_total",
            "SLIM messages handed to native lines from the archive.",
            *caught_up,
        ),
        (
            "skytale_relay_slim_archived_total",
            "SLIM messages handed to the archive.",
            *archived,
        ),
        (
            "skytale_relay_slim_unarchived_total",
            "SLIM messages passed on without being stored, because no further name may have a log.",
            *unarchived,
        ),
        (
            "skytale_relay_slim_repeated_total",
            "SLIM messages that were stored before and went on once more.",
            *repeated,
        ),
        (
            "skytale_relay_slim_commits_accepted_total",
            "SLIM commits that were let in.",
            *commits_accepted,
        ),
        (
            "skytale_relay_slim_commits_stale_total",
            "SLIM commits that another commit came before.",
            *commits_stale,
        ),
        (
            "skytale_relay_slim_commits_repeated_total",
            "SLIM commits that were said again.",
            *commits_repeated,
        ),
        (
            "skytale_relay_slim_commits_unordered_total",
            "SLIM commits passed on without an order, because they leap too far or their name can have no log.",
            *commits_unordered,
        ),
        (
            "skytale_relay_slim_rtx_answered_total",
            "Requests for a repeat that were answered from the archive.",
            *rtx_answered,
        ),
        (
            "skytale_relay_slim_pings_total",
            "Pings of SLIM to the relay itself.",
            *pings,
        ),
        (
            "skytale_relay_slim_refused_total",
            "Subscriptions of SLIM that were refused.",
            *refused,
        ),
        (
            "skytale_relay_slim_overrun_total",
            "SLIM messages that a slow stream had no room for.",
            snapshot.slim_overrun,
        ),
    ] {
        page.counter(&Key::from_static_name(name), about, value);
    }
    for (reason, count) in dropped {
        page.counter(
            &by("skytale_relay_slim_dropped_total", reason.code()),
            "SLIM messages that were not passed on.",
            *count,
        );
    }
}

fn render_grpc(page: &Page, grpc: &GrpcState) {
    page.gauge(
        "skytale_relay_grpc_listens",
        "Whether the door for gRPC listens.",
        usize::from(grpc.listens()),
    );
    let GrpcTallied {
        streams,
        denied,
        crowded,
        silent,
        wrong_macs,
        malformed,
        oversized,
        other_generation,
    } = grpc.tally().look();
    for (name, about, value) in [
        (
            "skytale_relay_slim_streams_total",
            "SLIM streams that were let in.",
            streams,
        ),
        (
            "skytale_relay_slim_denied_total",
            "SLIM streams that were refused for their token, or for having none.",
            denied,
        ),
        (
            "skytale_relay_grpc_crowded_total",
            "Connections and streams by gRPC that found no place.",
            crowded,
        ),
        (
            "skytale_relay_grpc_silent_total",
            "Connections and streams by gRPC that said nothing in time.",
            silent,
        ),
        (
            "skytale_relay_slim_wrong_macs_total",
            "SLIM messages dropped for their header's MAC.",
            wrong_macs,
        ),
        (
            "skytale_relay_slim_malformed_total",
            "SLIM messages dropped because they could not be read.",
            malformed,
        ),
        (
            "skytale_relay_slim_oversized_total",
            "SLIM messages dropped because they were too large.",
            oversized,
        ),
        (
            "skytale_relay_slim_other_generation_total",
            "SLIM messages dropped because their receiver speaks the other generation.",
            other_generation,
        ),
    ] {
        page.counter(&Key::from_static_name(name), about, value);
    }
}

/// One scrape's text in the making.
struct Page(PrometheusRecorder);

impl Page {
    fn gauge(&self, name: &'static str, about: &'static str, value: usize) {
        self.0.describe_gauge(name.into(), None, about.into());
        #[expect(
            clippy::cast_precision_loss,
            reason = "far fewer than 2^52 of anything"
        )]
        let value = value as f64;
        self.0
            .register_gauge(&Key::from_static_name(name), &METADATA)
            .set(value);
    }

    fn counter(&self, key: &Key, about: &'static str, value: u64) {
        let name = key.name().to_owned();
        self.0
            .describe_counter(name.into(), Some(Unit::Count), about.into());
        self.0.register_counter(key, &METADATA).absolute(value);
    }
}

fn by(name: &'static str, reason: &'static str) -> Key {
    Key::from_parts(name, vec![Label::from_static_parts("reason", reason)])
}

const METADATA: Metadata<'static> = Metadata::new("skytale_relay", Level::INFO, None);

#[cfg(test)]
mod tests {
    use skytale_wire::refusal::Refusal;

    use super::*;
    use crate::hub::SlimDrop;

    #[test]
    fn the_metrics_name_reasons_and_nothing_else() {
        let mut snapshot = Snapshot {
            writable: true,
            connections: 3,
            ..Snapshot::default()
        };
        snapshot.counters.published = 7;
        snapshot.counters.nacks.insert(Refusal::StaleEpoch, 2);
        snapshot.counters.slim.dropped.insert(SlimDrop::Nobody, 4);

        let issuers = Issuers {
            are_ready: true,
            report_waits: Some(true),
        };

        let text = render(&snapshot, issuers, Some(&GrpcState::default()));

        assert!(text.contains("skytale_relay_connections 3\n"), "{text}");
        assert!(text.contains("skytale_relay_published_total 7\n"), "{text}");
        assert!(
            text.contains("skytale_relay_refused_total{reason=\"stale_epoch\"} 2\n"),
            "{text}"
        );
        assert!(
            text.contains("skytale_relay_slim_dropped_total{reason=\"nobody\"} 4\n"),
            "{text}"
        );
        assert!(text.contains("skytale_relay_grpc_listens 0\n"), "{text}");
        assert!(text.contains("skytale_relay_slim_wrong_macs_total 0\n"));
        assert!(text.contains("skytale_relay_usage_report_waits 1\n"));
        let alone = Issuers {
            report_waits: None,
            ..issuers
        };
        let text = render(&snapshot, alone, None);
        assert!(!text.contains("grpc") && !text.contains("usage_report"));
    }
}
