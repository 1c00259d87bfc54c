//! The two services that gRPC's tools expect everywhere: health, which says whether agents should be
//! sent here, and reflection, which tells tools what can be called.

use std::{future::Future, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::health::Watched;

/// Routes for both, and what keeps health up to date until `ending`.
pub(super) async fn standard(
    watched: Watched,
    ending: CancellationToken,
) -> (Routes, impl Future<Output = ()> + Send + 'static) {
    let (reporter, health) = tonic_health::server::health_reporter();
    // Nothing is claimed before it was looked at, and nobody is told that there is no such service.
    say(&reporter, ServingStatus::NotServing).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(skytale_slim::proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(skytale_tunnel::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = reflection().build_v1().expect(DESCRIPTORS_ARE_OURS);
    let v1alpha = reflection().build_v1alpha().expect(DESCRIPTORS_ARE_OURS);
    let routes = Routes::default()
        .add_service(health.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(v1.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(v1alpha.max_decoding_message_size(REQUEST_BYTES_MAX));
    (routes, report(reporter, watched, ending))
}

async fn report(mut reporter: HealthReporter, watched: Watched, ending: CancellationToken) {
    let mut said = None;
    while !ending.is_cancelled() {
        let ready = watched.readiness().await.ready;
        if said != Some(ready) {
            said = Some(ready);
            let status = if ready {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            say(&reporter, status).await;
        }
        tokio::select! {
            () = ending.cancelled() => {}
            () = watched.draining.cancelled(), if said == Some(true) => {}
            () = sleep(if ready { LOOK_INTERVAL } else { UNREADY_INTERVAL }) => {}
        }
    }
    // Ends the streams of those who watch.
    for service in SERVICES {
        reporter.clear_service_status(service).await;
    }
}

async fn say(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}

/// The relay as a whole, and what SLIM's clients call.
const SERVICES: [&str; 2] = ["", "dataplane.proto.v1.DataPlaneService"];
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A relay that starts is ready within moments, and whoever waits for it should not wait for us.
const UNREADY_INTERVAL: Duration = Duration::from_millis(50);
/// The name of a service or a symbol.
const REQUEST_BYTES_MAX: usize = 4_096;
const DESCRIPTORS_ARE_OURS: &str = "the descriptors are made by our build";
