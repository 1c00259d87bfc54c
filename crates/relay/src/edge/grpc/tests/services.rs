//! Health and reflection, as gRPC's own tools ask for them.

use std::sync::atomic::{AtomicBool, Ordering};

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::*;
use crate::{
    archive::{Archive, ArchiveError, Write, Written, sqlite::SqliteArchive},
    driver::Driver,
    hub::{HubConfig, SlimRules},
    limits::Limits,
};

const SLIM: &str = "dataplane.proto.v1.DataPlaneService";

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test]
async fn health_is_told_and_ends_when_the_relay_does() {
    let house = House::open().await;
    let mut health = HealthClient::new(house.channel().await);
    let mut watching = health.watch(about(SLIM)).await.unwrap().into_inner();
    let mut next = async || -> Option<ServingStatus> {
        let next = timeout(PATIENCE, watching.message())
            .await
            .unwrap()
            .unwrap();
        next.map(|it| it.status())
    };
    loop {
        // Nothing is claimed before it was looked at.
        let status = next().await.unwrap();
        if status == ServingStatus::Serving {
            break;
        }
    }
    let whole = health.check(about("")).await.unwrap().into_inner();
    assert_eq!(whole.status(), ServingStatus::Serving);
    let unknown = health.check(about("other.Service")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    let stopping = tokio::spawn(house.relay.stop());

    assert_eq!(next().await, Some(ServingStatus::NotServing));
    assert_eq!(next().await, None);
    timeout(PATIENCE, stopping).await.unwrap().unwrap();
}

/// A disk that refuses on demand.
struct Flaky {
    archive: SqliteArchive,
    broken: Arc<AtomicBool>,
}

impl Archive for Flaky {
    type Reader = <SqliteArchive as Archive>::Reader;

    fn write(&mut self, batch: &[Write]) -> Result<Vec<Written>, ArchiveError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(ArchiveError::Unavailable("no space".into()));
        }
        self.archive.write(batch)
    }

    fn reader(&self) -> Self::Reader {
        self.archive.reader()
    }
}

#[tokio::test]
async fn an_archive_that_takes_nothing_is_not_served() {
    let (dir, config) = settings();
    let broken = Arc::<AtomicBool>::default();
    let archive = Flaky {
        archive: SqliteArchive::open(dir.path()).unwrap(),
        broken: Arc::clone(&broken),
    };
    let secret = SecretKey::from_bytes(&[3; 32]);
    let relay = skytale_wire::id::RelayKey(*secret.public().as_bytes());
    let hub = HubConfig {
        relay,
        limits: Limits::default(),
        guests: true,
        retention_ms: 3_600_000,
        slim: SlimRules::default(),
        meters: false,
    };
    let driver = Driver::start(hub, archive, Clock::system()).unwrap();
    let state = Arc::<GrpcState>::default();
    let parts = GrpcParts {
        addr: config.grpc_addr.unwrap(),
        watched: Watched {
            door: driver.door(),
            gate: Gate::new(relay, &config.issuers, Clock::system()).unwrap(),
            grpc: Some(Arc::clone(&state)),
            draining: CancellationToken::new(),
        },
        state,
        secret,
    };
    let edge = GrpcEdge::open(&config, parts).await.unwrap();
    let mut health = HealthClient::new(channel(edge.addr()).await);
    let mut watching = health.watch(about(SLIM)).await.unwrap().into_inner();
    let mut until = async |wanted| loop {
        let next = timeout(PATIENCE, watching.message())
            .await
            .unwrap()
            .unwrap();
        if next.expect("it goes on").status() == wanted {
            break;
        }
    };
    until(ServingStatus::Serving).await;

    broken.store(true, Ordering::SeqCst);
    let dialled = channel(edge.addr()).await;
    let mut alice = Client::dial(dialled, Generation::Two, "org/ns/alice").await;
    alice.publish("org/ns/bob", "it cannot be stored").await;
    until(ServingStatus::NotServing).await;

    broken.store(false, Ordering::SeqCst);
    until(ServingStatus::Serving).await;
    driver.stop().await;
    edge.finish(PATIENCE).await;
}

#[tokio::test]
async fn both_reflections_list_what_is_served() {
    let house = House::open().await;
    let channel = house.channel().await;
    macro_rules! services_and_files {
        ($version:ident) => {{
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let ask = |what| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(what),
            };
            let questions = [
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol(SLIM.to_owned())),
            ];
            let mut client = ServerReflectionClient::new(channel.clone());
            let asked = client.server_reflection_info(futures_util::stream::iter(questions));
            let mut answers = asked.await.unwrap().into_inner();
            let mut services = Vec::new();
            let mut files = 0;
            while let Some(answer) = answers.message().await.unwrap() {
                match answer.message_response.unwrap() {
                    MessageResponse::ListServicesResponse(list) => {
                        services = list.service.into_iter().map(|it| it.name).collect();
                    }
                    MessageResponse::FileDescriptorResponse(found) => {
                        files = found.file_descriptor_proto.len();
                    }
                    other => panic!("{other:?}"),
                }
            }
            (services, files)
        }};
    }
    for (services, files) in [services_and_files!(v1), services_and_files!(v1alpha)] {
        let services: Vec<String> = services;
        for service in [SLIM, "grpc.health.v1.Health", "skytale.line.v1.Line"] {
            assert!(services.iter().any(|it| it == service), "{services:?}");
        }
        assert_eq!(files, 1);
    }
    let unknown = async {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let path = axum::http::uri::PathAndQuery::from_static("/other.Service/Method");
        let none = futures_util::stream::empty::<Bytes>();
        grpc.streaming(Request::new(none), path, Raw).await.err()
    };
    assert_eq!(unknown.await.unwrap().code(), Code::Unimplemented);
    house.relay.stop().await;
}
