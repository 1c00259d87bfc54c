//! A node between one stock agent and a relay that loses one message of an application, on purpose:
//! the agent then has a gap, and whoever said the lost one can be taken away before the agent sees it.

use std::{
    convert::Infallible,
    sync::{Arc, mpsc as std_mpsc},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use skytale_slim::{Inbound, MessageType, Opening, Routed, open};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{Notify, mpsc},
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService, StreamingService},
    transport::{Server, server::TcpIncoming},
};

use super::wire::{QUEUE, Raw, Wire, chance, drained};
use crate::processes::PATIENCE;

/// A running one. It ends with its handle.
#[derive(Debug)]
pub struct Hop {
    url: String,
    plan: Arc<Plan>,
    held: std_mpsc::Receiver<()>,
    _runtime: Runtime,
}

#[derive(Debug)]
struct Plan {
    upstream: String,
    /// The number of the message that is lost, and of the one that shows the gap.
    lost: u32,
    release: Notify,
    held: std_mpsc::Sender<()>,
}

impl Hop {
    /// Between an agent and the port at this address. Loses the message of this number, and holds
    /// what comes after it until it is told to go on.
    pub fn start(upstream: &str, lost: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (tell_held, held) = std_mpsc::channel();
        let plan = Arc::new(Plan {
            upstream: upstream.to_owned(),
            lost,
            release: Notify::new(),
            held: tell_held,
        });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let door = Door(Arc::clone(&plan));
        runtime.spawn(
            Server::builder()
                .add_service(door)
                .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))),
        );
        Self {
            url,
            plan,
            held,
            _runtime: runtime,
        }
    }

    /// What the agent is given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits until it has lost the one message and holds the next.
    #[track_caller]
    pub fn has_lost_one(&self) {
        self.held.recv_timeout(PATIENCE).expect("nothing was lost");
    }

    /// Lets go of what it holds; what was lost stays lost until the agent has asked for it.
    pub fn go_on(&self) {
        self.plan.release.notify_one();
    }
}

/// Carries one agent's stream.
async fn carry(plan: Arc<Plan>, mut agent: Streaming<Bytes>, to_agent: mpsc::Sender<Bytes>) {
    let first = agent.message().await.unwrap().unwrap();
    let Opening::Offer(offer) = open(first).unwrap() else {
        panic!("only agents of the second generation come here");
    };
    let (reply, down) = offer.answer("hop", &mut chance()).unwrap();
    to_agent.send(reply.into()).await.unwrap();
    let Wire {
        link: up,
        out,
        mut inbound,
    } = Wire::connect(&plan.upstream, &format!("{}-hop", offer.link_id)).await;
    let mut losing = Losing::NotYet;
    let mut holding = Vec::new();
    loop {
        let (link, onward, side) = tokio::select! {
            said = agent.message() => {
                let Ok(Some(said)) = said else { return };
                let Inbound::Routed(routed) = down.read(said).unwrap() else { continue };
                if kind_of(&routed) == Some(MessageType::RtxRequest) {
                    losing = Losing::Over;
                }
                (&up, routed.onward(1).unwrap(), &out)
            }
            said = inbound.message() => {
                let Ok(Some(said)) = said else { return };
                let routed = match up.read(said.clone()).unwrap() {
                    Inbound::Routed(routed) => routed,
                    // It is signed for no link.
                    Inbound::SubscriptionAck { .. } => {
                        if to_agent.send(said).await.is_err() { return }
                        continue;
                    }
                    Inbound::Link(_) => continue,
                };
                if losing != Losing::Over && is_message(&routed, plan.lost) {
                    losing = losing.begun();
                    continue;
                }
                let onward = routed.onward(1).unwrap();
                if losing == Losing::Holding {
                    if is_message(&routed, plan.lost + 1) {
                        let _ = plan.held.send(());
                    }
                    holding.push(onward);
                    continue;
                }
                (&down, onward, &to_agent)
            }
            () = plan.release.notified() => {
                losing = Losing::Asked;
                for onward in holding.drain(..) {
                    let mut bytes = Vec::new();
                    down.write(&onward, &mut bytes).unwrap();
                    if to_agent.send(bytes.into()).await.is_err() { return }
                }
                continue;
            }
        };
        let mut bytes = Vec::new();
        link.write(&onward, &mut bytes).unwrap();
        if side.send(bytes.into()).await.is_err() {
            return;
        }
    }
}

/// How far the loss has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Losing {
    NotYet,
    /// It is lost, and what comes after it waits.
    Holding,
    /// Nothing waits; the agent has not asked for what it lacks.
    Asked,
    /// It may come now.
    Over,
}

impl Losing {
    /// Repetitions are lost as the first one was.
    fn begun(self) -> Self {
        match self {
            Self::NotYet | Self::Holding => Self::Holding,
            Self::Asked | Self::Over => self,
        }
    }
}

fn kind_of(routed: &Routed) -> Option<MessageType> {
    routed.session().map(|session| session.message)
}

fn is_message(routed: &Routed, number: u32) -> bool {
    routed
        .session()
        .is_some_and(|it| it.message == MessageType::Msg && it.message_id == number)
}

/// SLIM's one method as a service.
#[derive(Debug, Clone)]
struct Door(Arc<Plan>);

impl NamedService for Door {
    const NAME: &'static str = "dataplane.proto.v1.DataPlaneService";
}

impl Service<http::Request<Body>> for Door {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let door = self.clone();
        Box::pin(async move { Ok(Grpc::new(Raw).streaming(door, request).await) })
    }
}

impl StreamingService<Bytes> for Door {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (to_agent, inside) = mpsc::channel(QUEUE);
        tokio::spawn(carry(Arc::clone(&self.0), request.into_inner(), to_agent));
        Box::pin(async { Ok(Response::new(drained(inside).map(Ok).boxed())) })
    }
}
